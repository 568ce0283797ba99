//! What the expressions of a definition can cost, before any of them is evaluated.
//!
//! A definition comes from strangers, and SQLite evaluates parts of it whenever a row is written, some even as an index is
//! made. Most functions cost as much as they are given. The exceptions are counted here: those that make a value of any
//! size out of a number, those whose result is longer than what they are given, and those that compare two values with
//! each other at every place. What is left costs no more than a row's own bytes ask for.

use std::collections::HashMap;

use super::generated::expressions;
use super::sql_text::{Token, TokenKind, first_list, tokens};

/// How many bytes the constants of a table's definitions may make out of numbers, as `zeroblob(16)` makes 16.
const MAX_MADE_BYTES: u64 = 4_096;

/// How many times as long as a value of the row, or as a constant, an expression may become.
const MAX_GROWTH: u64 = 16_384;

/// How often the definitions of a table may compare two values at every place, as LIKE does.
const MAX_COMPARISONS: u64 = 256;

/// How deeply parentheses and generated columns may be nested; SQLite's own limit for expressions.
const MAX_DEPTH: usize = 1_000;

/// Functions whose result may be longer than what they are given, with how many times as long it may be. Of `replace`, that
/// depends on its third argument.
const GROWING: [(&str, u64); 6] =
    [("hex", 2), ("quote", 2), ("json_quote", 6), ("unistr_quote", 6), ("json_pretty", 4_096), ("char", 4)];

/// How many times as long `replace` makes a text where nobody can tell what it puts in.
const REPLACED_BY_ANYTHING: u64 = 256;

/// What the definitions of a table cost so far.
#[derive(Debug, Default)]
pub struct Cost {
    /// The expressions of generated columns, by the columns' names in lower case.
    generated: HashMap<String, String>,
    /// How much longer than what it is made of each of these becomes, once that is known.
    growth: HashMap<String, u64>,
    made_bytes: u64,
    comparisons: u64,
}

impl Cost {
    /// Of the text that makes a table.
    ///
    /// # Errors
    /// What in it costs too much, in words.
    pub fn of_table(ddl: &str) -> Result<Self, String> {
        let generated = expressions(ddl).into_iter().map(|(name, text)| (name.to_lowercase(), text));
        let mut cost = Self { generated: generated.collect(), ..Self::default() };
        cost.add(ddl)?;
        Ok(cost)
    }

    /// Adds a definition: the table's own, or that of an index on it.
    ///
    /// # Errors
    /// What in it costs too much, in words.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        let tokens = tokens(text).ok_or("its definition has a quote that is not closed")?;
        let (parts, rest) = first_list(&tokens).unwrap_or((Vec::new(), &tokens));
        for part in parts.into_iter().chain([rest]) {
            if self.growth_of(part, 0)? > MAX_GROWTH {
                return Err(format!(
                    "an expression of its definition can become more than {MAX_GROWTH} times as long as what it is made of"
                ));
            }
        }
        if self.made_bytes > MAX_MADE_BYTES {
            return Err(format!(
                "its definition makes values of more than {MAX_MADE_BYTES} bytes out of numbers"
            ));
        }
        if self.comparisons > MAX_COMPARISONS {
            return Err(format!(
                "its definition has more than {MAX_COMPARISONS} of LIKE, GLOB, instr, replace and trim"
            ));
        }
        Ok(())
    }

    /// How many times as long as the longest of what it is made of some tokens may become together.
    fn growth_of(&mut self, tokens: &[Token<'_>], depth: usize) -> Result<u64, String> {
        if depth > MAX_DEPTH {
            return Err(format!("its definition is nested more than {MAX_DEPTH} deep"));
        }
        let (mut growth, mut at) = (0_u64, 0);
        while let Some(token) = tokens.get(at) {
            let is_called = tokens.get(at + 1).is_some_and(|next| next.is("("));
            let name = token.name().filter(|_| is_called || token.kind != TokenKind::String);
            let list_at = if token.is("(") { Some(at) } else { is_called.then_some(at + 1) };
            let closed = list_at.and_then(|open| first_list(&tokens[open..]));
            match (closed, name) {
                (Some((arguments, rest)), name) => {
                    let is_function = !token.is("(") && !is_table(tokens, at);
                    let name = name.filter(|_| is_function).map(|name| name.to_lowercase());
                    growth = growth.saturating_add(self.call(name.as_deref(), &arguments, depth)?);
                    at = tokens.len() - rest.len();
                    continue;
                }
                (None, Some(name)) => growth = growth.saturating_add(self.mention(&name, depth)?),
                (None, None) => growth = growth.saturating_add(1),
            }
            if token.is("LIKE") || token.is("GLOB") {
                self.comparisons += 1;
            }
            at += 1;
        }
        Ok(growth)
    }

    /// How long a call makes what it is given; without a name, it is only in parentheses.
    fn call(&mut self, name: Option<&str>, arguments: &[&[Token<'_>]], depth: usize) -> Result<u64, String> {
        let mut given = 0_u64;
        for argument in arguments {
            given = given.saturating_add(self.growth_of(argument, depth + 1)?);
        }
        let Some(name) = name else { return Ok(given) };
        let compares = match name {
            "instr" | "like" | "glob" | "replace" => true,
            "trim" | "ltrim" | "rtrim" | "unhex" => arguments.len() > 1,
            _ => false,
        };
        self.comparisons += u64::from(compares);
        let times = match name {
            "zeroblob" | "randomblob" => {
                self.made_bytes = self.made_bytes.saturating_add(size(name, arguments)?);
                1
            }
            "printf" | "format" => {
                self.made_bytes = self.made_bytes.saturating_add(widths(name, arguments)?);
                1
            }
            "replace" => match arguments.get(2) {
                Some([text]) if text.kind == TokenKind::String => text.text.len() as u64,
                _ => REPLACED_BY_ANYTHING,
            },
            _ => GROWING.iter().find(|(function, _)| *function == name).map_or(1, |(_, times)| *times),
        };
        Ok(given.saturating_mul(times))
    }

    /// How much longer than what is stored a mention of a column may be.
    fn mention(&mut self, name: &str, depth: usize) -> Result<u64, String> {
        let name = name.to_lowercase();
        if let Some(known) = self.growth.get(&name) {
            return Ok(*known);
        }
        let Some(expression) = self.generated.get(&name).cloned() else { return Ok(1) };
        // A column that is made of itself ends here, and at SQLite.
        self.growth.insert(name.clone(), 1);
        let tokens = tokens(&expression).ok_or("its definition has a quote that is not closed")?;
        let growth = self.growth_of(&tokens, depth + 1)?;
        self.growth.insert(name, growth);
        Ok(growth)
    }
}

/// Whether a name before a parenthesis is a table's: of the one that is made, indexed, or referenced.
fn is_table(tokens: &[Token<'_>], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|before| tokens.get(before));
    before.is_some_and(|before| ["TABLE", "EXISTS", "ON", "REFERENCES", "."].iter().any(|it| before.is(it)))
}

/// The size that `zeroblob` or `randomblob` is told.
fn size(name: &str, arguments: &[&[Token<'_>]]) -> Result<u64, String> {
    match arguments {
        [[number]] if number.kind == TokenKind::Word => number.text.parse().ok(),
        _ => None,
    }
    .ok_or_else(|| format!("{name} in its definition is of a size that is not written out in digits"))
}

/// The widths in the format of `printf`, together.
fn widths(name: &str, arguments: &[&[Token<'_>]]) -> Result<u64, String> {
    let format = match arguments.first() {
        Some([text]) if text.kind == TokenKind::String => text.text,
        _ => return Err(format!("{name} in its definition has a format that is not written out")),
    };
    let mut sum = 0_u64;
    for specification in format.split('%').skip(1) {
        let end = specification.find(|it: char| !it.is_ascii_digit() && !"-+ 0#,!.*l".contains(it));
        let specification = &specification[..end.unwrap_or(specification.len())];
        if specification.contains('*') {
            return Err(format!("{name} in its definition has a width that is not written out in digits"));
        }
        for number in specification.split(|it: char| !it.is_ascii_digit()).filter(|it| !it.is_empty()) {
            sum = sum.saturating_add(number.parse().unwrap_or(u64::MAX));
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(columns: &str) -> Result<(), String> {
        Cost::of_table(&format!("CREATE TABLE t(id TEXT PRIMARY KEY, a TEXT, {columns})")).map(|_| ())
    }

    #[test]
    fn what_ordinary_definitions_say_is_cheap() {
        for columns in [
            "b TEXT DEFAULT (lower(hex(randomblob(4))) || '-' || hex(randomblob(2)) || '-4' || hex(zeroblob(6)))",
            "b CHECK(a LIKE '%@%.%' AND a NOT GLOB '*[^0-9]*' AND instr(a, b) > 0)",
            "b AS (replace(replace(trim(a, '-'), ' ', '_'), '--', '-')) STORED, c VARCHAR(100000)",
            "b TEXT DEFAULT (printf('%010d-%s-%5.2f', 1, 'x', 2.5)), zeroblob, \"instr\" INT",
            "b REFERENCES zeroblob(id), FOREIGN KEY(a) REFERENCES \"printf\"(id), hex INT",
        ] {
            assert_eq!(table(columns), Ok(()), "{columns}");
        }
        let names = (0..1_500).map(|n| format!("c{n} TEXT NOT NULL DEFAULT ''")).collect::<Vec<_>>();
        assert_eq!(table(&names.join(", ")), Ok(()));
        assert!(Cost::of_table("CREATE TABLE format(id TEXT PRIMARY KEY, b)").is_ok());
        assert!(Cost::of_table("CREATE TABLE IF NOT EXISTS main.zeroblob(id, b)").is_ok());
        assert_eq!(Cost::default().add("CREATE INDEX i ON printf(a, lower(b)) WHERE a LIKE 'x%'"), Ok(()));
    }

    /// Breaks if whoever may write a definition can keep the thread of every other agent of its tenant busy.
    #[test]
    fn what_costs_out_of_all_proportion_is_named() {
        let chain = |call: &str| {
            let links: Vec<_> = (1..40).map(|n| format!("g{n} AS ({call}(g{}))", n - 1)).collect();
            format!("g0 AS (a), {}", links.join(", "))
        };
        for (columns, what) in [
            ("b CHECK(instr(zeroblob(4e8), b) = 0)", "zeroblob"),
            ("b CHECK(instr(\"ZeroBlob\"(400000000), b) = 0)", "4096 bytes"),
            ("b DEFAULT (hex(randomblob(length(a))))", "randomblob"),
            ("b CHECK(printf('%.*c', 400000000, 'x') > b)", "printf"),
            ("b CHECK(format('%400000000d', 1) > b)", "4096 bytes"),
            ("b CHECK(printf('%99999999999999999999d', 1) > b)", "4096 bytes"),
            ("b CHECK(printf(a, 1) > b)", "printf"),
            (
                "b AS (hex(hex(hex(hex(hex(hex(hex(hex(hex(hex(hex(hex(hex(hex(hex(a))))))))))))))))",
                "16384 times",
            ),
            ("b CHECK(replace(replace(a, 'x', a), 'y', a) > '')", "16384 times"),
            ("b AS (json_pretty(json_pretty(a)))", "16384 times"),
            (&chain("hex"), "16384 times"),
            (&format!("b CHECK({} 1)", "a LIKE 'x' OR ".repeat(300)), "LIKE"),
            (&format!("b CHECK({}1{})", "(".repeat(2_000), ")".repeat(2_000)), "deep"),
            ("b DEFAULT 'x", "quote"),
        ] {
            let why = table(columns).unwrap_err();
            assert!(why.contains(what), "{columns}: {why}");
        }
        for index in [
            "CREATE INDEX i ON t(a) WHERE instr(zeroblob(4e8), a)",
            "CREATE INDEX i ON t(hex(zeroblob(9999)))",
        ] {
            assert!(Cost::default().add(index).is_err(), "{index}");
        }
    }
}
