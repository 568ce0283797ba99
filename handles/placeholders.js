'use strict';

// Packages that bind a whole double as an integer, or a BigInt as text: the parameter is wrapped in a CAST.

/** String literals, quoted names and comments, in which a question mark means nothing; then a placeholder. */
const PLACEHOLDER = /'[^']*'|"[^"]*"|`[^`]*`|\[[^\]]*\]|--[^\n]*|\/\*[^]*?\*\/|\?(\d*)/g;

// Unary plus takes away the affinity that a CAST has and a parameter has not: it would change comparisons.
const WRAPPED = {
  i: (parameter) => `(+CAST(${parameter} AS INTEGER))`,
  r: (parameter) => `(+CAST(${parameter} AS REAL))`,
};

/** The SQL with those of its parameters wrapped whose mark is `i` (an integer) or `r` (a double). */
function wrapped(sql, marks) {
  let greatest = 0;
  return sql.replace(PLACEHOLDER, (text, number) => {
    if (number === undefined) return text;
    const place = number === '' ? greatest + 1 : Number(number);
    greatest = Math.max(greatest, place);
    const wrap = WRAPPED[marks[place - 1]];
    return wrap === undefined ? text : wrap(text);
  });
}

module.exports = { wrapped };
