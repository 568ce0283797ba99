//! SQL text cut into tokens, as SQLite cuts it: for the few facts about a definition that no pragma tells.

/// What kind of token it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// A keyword, or a name that is not quoted. A number counts as one: it is never asked for.
    Word,
    /// A name in double quotes, backticks or brackets.
    QuotedName,
    /// A string, `'…'`.
    String,
    /// Any other character.
    Symbol,
}

/// A token, and where it begins and ends in the text, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    /// Its kind.
    pub kind: TokenKind,
    /// Its text, quotes included.
    pub text: &'a str,
    /// Where it begins.
    pub start: usize,
}

impl Token<'_> {
    /// Where it ends.
    pub fn end(&self) -> usize {
        self.start + self.text.len()
    }

    /// Whether it is this keyword or this symbol.
    pub fn is(&self, word: &str) -> bool {
        matches!(self.kind, TokenKind::Word | TokenKind::Symbol) && self.text.eq_ignore_ascii_case(word)
    }

    /// The name that it stands for, without its quotes; none for strings and symbols.
    pub fn name(&self) -> Option<String> {
        match self.kind {
            TokenKind::Word => Some(self.text.to_owned()),
            TokenKind::QuotedName => {
                let inner = &self.text[1..self.text.len() - 1];
                Some(match self.text.as_bytes()[0] {
                    b'[' => inner.to_owned(),
                    b'"' => inner.replace("\"\"", "\""),
                    _ => inner.replace("``", "`"),
                })
            }
            TokenKind::String | TokenKind::Symbol => None,
        }
    }
}

/// The tokens of a text, without its comments. None if a quote is not closed: then it is no SQL.
pub fn tokens(text: &str) -> Option<Vec<Token<'_>>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let (kind, length) = match first {
            _ if first.is_ascii_whitespace() => (None, 1),
            '-' if rest.starts_with("--") => (None, rest.find('\n').unwrap_or(rest.len())),
            // A comment that is not closed ends with the text.
            '/' if rest.starts_with("/*") => {
                (None, rest[2..].find("*/").map_or(rest.len(), |length| length + 4))
            }
            '\'' => (Some(TokenKind::String), quoted(rest, '\'')?),
            '"' | '`' => (Some(TokenKind::QuotedName), quoted(rest, first)?),
            '[' => (Some(TokenKind::QuotedName), rest.find(']')? + 1),
            _ if is_word(first) => (Some(TokenKind::Word), rest.find(|c| !is_word(c)).unwrap_or(rest.len())),
            _ => (Some(TokenKind::Symbol), first.len_utf8()),
        };
        tokens.extend(kind.map(|kind| Token { kind, text: &rest[..length], start: at }));
        at += length;
    }
    Some(tokens)
}

/// A definition, as SQLite keeps it, that makes its object in the main database: without a schema's name SQLite looks for
/// the table of an index or a trigger among the temporary ones first. A text that names a schema stays what it is.
pub fn in_main(definition: &str) -> String {
    let tokens = tokens(definition).unwrap_or_default();
    let is_kind = |token: &Token<'_>| ["TABLE", "INDEX", "TRIGGER"].iter().any(|kind| token.is(kind));
    // CREATE, perhaps UNIQUE, and what it makes.
    let Some(kind) = tokens.iter().take(3).position(is_kind).filter(|_| tokens[0].is("CREATE")) else {
        return definition.to_owned();
    };
    let condition = ["IF", "NOT", "EXISTS"];
    let is_conditional =
        condition.iter().zip(&tokens[kind + 1..]).filter(|(word, token)| token.is(word)).count() == 3;
    let at = if is_conditional { kind + 4 } else { kind + 1 };
    match (tokens.get(at), tokens.get(at + 1).is_some_and(|next| next.is("."))) {
        (Some(name), false) => format!("{}main.{}", &definition[..name.start], &definition[name.start..]),
        _ => definition.to_owned(),
    }
}

/// The parts of the first list in parentheses, and what follows it. None if there is none, or if it is not closed.
pub fn first_list<'t, 'a>(tokens: &'t [Token<'a>]) -> Option<(Vec<&'t [Token<'a>]>, &'t [Token<'a>])> {
    let open = tokens.iter().position(|token| token.is("("))?;
    let (mut depth, mut from, mut parts) = (0_usize, open + 1, Vec::new());
    for (at, token) in tokens.iter().enumerate().skip(open) {
        if token.is("(") {
            depth += 1;
        } else if token.is(")") {
            depth -= 1;
        }
        if depth == 0 || (depth == 1 && token.is(",")) {
            parts.push(&tokens[from..at]);
            from = at + 1;
        }
        if depth == 0 {
            return Some((parts, &tokens[from..]));
        }
    }
    None
}

/// The text from the first token to the last.
pub fn span<'a>(text: &'a str, tokens: &[Token<'_>]) -> Option<&'a str> {
    Some(&text[tokens.first()?.start..tokens.last()?.end()])
}

/// The names in an expression that can be columns.
pub fn names(expression: &str) -> Vec<String> {
    let tokens = tokens(expression).unwrap_or_default();
    let is_called = |at: usize| tokens.get(at + 1).is_some_and(|next| next.is("("));
    let columns = tokens.iter().enumerate().filter(|(at, token)| {
        let can_be = matches!(token.kind, TokenKind::Word | TokenKind::QuotedName);
        can_be && !is_called(*at)
    });
    columns.filter_map(|(_, token)| token.name()).collect()
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$') || !c.is_ascii()
}

/// The length of a text in quotes; a quote that is doubled stands for itself.
fn quoted(text: &str, quote: char) -> Option<usize> {
    let mut at = 1;
    loop {
        at += text[at..].find(quote)? + 1;
        if !text[at..].starts_with(quote) {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(sql: &str) -> Vec<&str> {
        tokens(sql).unwrap().iter().map(|token| token.text).collect()
    }

    #[test]
    fn quotes_and_comments_hide_what_they_hold() {
        assert_eq!(
            texts("a/* ( */,'it''s (' -- )\n(\"x\"\"y\" [b)] `c``d`)x'00' é_1"),
            ["a", ",", "'it''s ('", "(", "\"x\"\"y\"", "[b)]", "`c``d`", ")", "x", "'00'", "é_1"]
        );
        assert_eq!(texts("a -- to the end"), ["a"]);
        assert_eq!(texts("a /* to the end"), ["a"]);
        for open in ["'", "\"a", "[a", "'a''"] {
            assert_eq!(tokens(open), None, "{open}");
        }
    }

    #[test]
    fn a_name_loses_its_quotes() {
        let names: Vec<_> =
            tokens("a \"x\"\"y\" [b] `c``d` 'e' (").unwrap().iter().map(Token::name).collect();
        let expected = ["a", "x\"y", "b", "c`d"].map(|name| Some(name.to_owned()));
        assert_eq!(names[..4], expected);
        assert_eq!(names[4..], [None, None]);
    }

    #[test]
    fn a_definition_is_of_the_main_database() {
        for (text, expected) in [
            ("CREATE TABLE t(a)", "CREATE TABLE main.t(a)"),
            ("CREATE UNIQUE INDEX \"i j\" ON t(a)", "CREATE UNIQUE INDEX main.\"i j\" ON t(a)"),
            ("create index if not exists i on t(a)", "create index if not exists main.i on t(a)"),
            ("CREATE TRIGGER temp.x AFTER INSERT ON t", "CREATE TRIGGER temp.x AFTER INSERT ON t"),
            ("CREATE TABLE \"index\"(a)", "CREATE TABLE main.\"index\"(a)"),
            ("SELECT 1", "SELECT 1"),
        ] {
            assert_eq!(in_main(text), expected);
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in ".*") {
            for token in tokens(&text).unwrap_or_default() {
                prop_assert_eq!(&text[token.start..token.end()], token.text);
                let _ = token.name();
            }
            let _ = in_main(&text);
        }
    }
}
