//! Tables that hold one row, by a CHECK of their number: what applications keep settings and counters in.

use super::catalog::{Key, Table};
use super::sql_text::{Token, first_list, span, tokens};

/// What is to be said of a table that holds one row, and whose number means another row on each replica.
pub fn advice(table: &Table) -> Option<String> {
    let Key::Number(key) = &table.key else { return None };
    let condition = only_number(&table.ddl, key)?;
    let name = &table.name;
    Some(format!(
        "table {name} holds one row, by CHECK ({condition}), and numbers mean other rows elsewhere: what others write to \
         theirs is set aside. If it is one row for all, say tables.{name}.identity: 'primaryKey' before the table is first \
         synced; a tenant that has it without needs it under another name. If it is each agent's own, exclude it"
    ))
}

/// The condition in a `CREATE TABLE` that leaves its key one value.
fn only_number(ddl: &str, key: &str) -> Option<String> {
    let tokens = tokens(ddl)?;
    let checks = (0..tokens.len()).filter(|at| tokens[*at].is("CHECK"));
    checks.filter_map(|at| first_list(&tokens[at + 1..])).find_map(|(parts, _)| {
        let [condition] = parts[..] else { return None };
        let mut terms = condition.split(|token| token.is("AND"));
        let only = terms.find(|term| is_one_value(term, key))?;
        Some(span(ddl, only)?.to_owned())
    })
}

/// Whether a term compares the key with a number: `key = 1`, `1 IS key`, `key IN (1)`.
fn is_one_value(mut term: &[Token<'_>], key: &str) -> bool {
    while let [first, inner @ .., last] = term
        && first.is("(")
        && last.is(")")
    {
        term = inner;
    }
    let is_key = |token: &Token<'_>| token.name().is_some_and(|name| name.eq_ignore_ascii_case(key));
    let is_number = |term: &[Token<'_>]| match term {
        [number] => is_digits(number),
        [sign, number] => (sign.is("-") || sign.is("+")) && is_digits(number),
        _ => false,
    };
    let are_sides = |left: &[Token<'_>], right: &[Token<'_>]| {
        matches!(left, [only] if is_key(only)) && is_number(right)
            || matches!(right, [only] if is_key(only)) && is_number(left)
    };
    if let [first, inside, open, number @ .., close] = term
        && inside.is("IN")
        && open.is("(")
        && close.is(")")
    {
        return is_key(first) && is_number(number);
    }
    let Some(at) = term.iter().position(|token| token.is("=") || token.is("IS")) else { return false };
    let is_double = term[at].is("=") && term.get(at + 1).is_some_and(|next| next.is("="));
    are_sides(&term[..at], &term[at + 1 + usize::from(is_double)..])
}

fn is_digits(token: &Token<'_>) -> bool {
    token.text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_leaves_the_key_one_value_is_found() {
        for (check, expected) in [
            ("CHECK (id = 1)", Some("id = 1")),
            ("CHECK(\"ID\"==0)", Some("\"ID\"==0")),
            ("CONSTRAINT one CHECK (1 = [id])", Some("1 = [id]")),
            ("CHECK ((id IS -1))", Some("(id IS -1)")),
            ("CHECK (id IN (1))", Some("id IN (1)")),
            ("CHECK (length(body) > 1) CHECK (body <> '' AND id = 1)", Some("id = 1")),
            ("CHECK (id > 1)", None),
            ("CHECK (id IN (1, 2))", None),
            ("CHECK (id = 1 OR body = 'x')", None),
            ("CHECK (id = body)", None),
            ("CHECK (body = 1)", None),
            ("DEFAULT 'CHECK (id = 1)'", None),
        ] {
            let ddl = format!("CREATE TABLE t(id INTEGER PRIMARY KEY, body {check})");
            assert_eq!(only_number(&ddl, "id").as_deref(), expected, "{check}");
        }
    }
}
