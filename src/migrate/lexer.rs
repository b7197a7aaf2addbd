//! Splits a file of SQL into its top-level statements, as PostgreSQL's own lexer would.
//!
//! It recognises constructs that may hide a semicolon or a keyword: strings (also `E''` and continued
//! ones), quoted identifiers, dollar quotes, nested comments, parentheses (`CREATE RULE`) and
//! SQL-standard bodies (`BEGIN ATOMIC … END`). The server parses everything else.

/// A top-level statement.
#[derive(Debug, PartialEq, Eq)]
pub struct Statement<'a> {
    /// Its text, from its first token to its last, without the semicolon.
    pub text: &'a str,
    /// The offset of the text in the file, in bytes.
    pub offset: usize,
    /// The line of its first token, from 1.
    pub line: u32,
    /// Its first unquoted words outside of parentheses and bodies; an empty one stands for any run
    /// of other tokens, so that two words that follow one another here do so in the file.
    words: Vec<&'a str>,
}

impl Statement<'_> {
    /// Whether the statement starts with these words.
    pub fn starts_with(&self, words: &[&str]) -> bool {
        self.words.len() >= words.len() && same(&self.words[..words.len()], words)
    }

    /// Whether the statement is these words and nothing else.
    pub fn is(&self, words: &[&str]) -> bool {
        self.words.len() == words.len() && same(&self.words, words)
    }

    /// Whether these words follow one another somewhere in the statement.
    pub fn contains(&self, words: &[&str]) -> bool {
        self.words.windows(words.len()).any(|window| same(window, words))
    }
}

fn same(found: &[&str], words: &[&str]) -> bool {
    found.iter().zip(words).all(|(found, word)| found.eq_ignore_ascii_case(word))
}

/// A file that cannot be split into statements.
#[derive(Debug, PartialEq, Eq)]
pub struct LexError {
    /// The line, from 1.
    pub line: u32,
    /// The problem.
    pub message: &'static str,
}

/// How many words of a statement are kept: what decides about it stands in front.
const WORDS: usize = 64;

/// The statements of a file, one at a time, since a file may have a million of them; empty ones (`;;`)
/// are left out. An error is the last item: a quote, comment, parenthesis or body that is not closed,
/// or a backslash command of psql.
pub fn statements(sql: &str) -> Statements<'_> {
    Statements { lexer: Some(Lexer::new(sql)) }
}

/// The statements of a file.
pub struct Statements<'a> {
    /// None at the end.
    lexer: Option<Lexer<'a>>,
}

impl<'a> Iterator for Statements<'a> {
    type Item = Result<Statement<'a>, LexError>;

    fn next(&mut self) -> Option<Self::Item> {
        let lexer = self.lexer.as_mut()?;
        let sql = lexer.sql;
        let mut building = Building::default();
        let end = loop {
            match lexer.next_token() {
                Ok(Some(Token { kind: Kind::Semicolon, .. })) if building.is_top_level() => {
                    if let Some(statement) = std::mem::take(&mut building).finish(sql) {
                        return Some(Ok(statement));
                    }
                }
                Ok(Some(token)) => building.push(&token, &sql[token.start..token.end]),
                Ok(None) => break building.check_closed(),
                Err(error) => break Err(error),
            }
        };
        self.lexer = None;
        match end {
            Ok(()) => building.finish(sql).map(Ok),
            Err(error) => Some(Err(error)),
        }
    }
}

/// A file with a semicolon in front of each delimiter that stands between two tokens, outside of
/// parentheses; lines keep their numbers. A delimiter is white space, or a comment to the end of a line.
///
/// # Errors
/// As those of [`statements`].
pub fn delimited(sql: &str, delimiter: &str) -> Result<String, LexError> {
    let mut lexer = Lexer::new(sql);
    let mut text = String::with_capacity(sql.len() + 64);
    let (mut end, mut depth) = (0, 0_usize);
    loop {
        let token = lexer.next_token()?;
        let start = token.as_ref().map_or(sql.len(), |token| token.start);
        if end > 0 && depth == 0 && sql[end..start].contains(delimiter) {
            text.push(';');
        }
        text.push_str(&sql[end..start]);
        let Some(token) = token else { return Ok(text) };
        text.push_str(&sql[token.start..token.end]);
        match token.kind {
            Kind::Open => depth += 1,
            Kind::Close => depth = depth.saturating_sub(1),
            _ => {}
        }
        end = token.end;
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Word,
    Open,
    Close,
    Semicolon,
    Dot,
    Other,
}

struct Token {
    kind: Kind,
    start: usize,
    end: usize,
    line: u32,
}

/// The statement that is being read.
#[derive(Default)]
struct Building<'a> {
    span: Option<(usize, usize, u32)>,
    words: Vec<&'a str>,
    /// The lines of the parentheses that are open.
    open: Vec<u32>,
    /// The line of `BEGIN ATOMIC`, and how many `END` its body still needs.
    body: Option<(u32, usize)>,
    previous: Previous<'a>,
}

#[derive(Default, Clone, Copy)]
enum Previous<'a> {
    Word(&'a str),
    Dot,
    #[default]
    Other,
}

impl<'a> Building<'a> {
    fn is_top_level(&self) -> bool {
        self.open.is_empty() && self.body.is_none()
    }

    fn push(&mut self, token: &Token, text: &'a str) {
        self.span = match self.span {
            Some((start, _, line)) => Some((start, token.end, line)),
            None => Some((token.start, token.end, token.line)),
        };
        if self.is_top_level() {
            match token.kind {
                _ if self.words.len() == WORDS => {}
                Kind::Word => self.words.push(text),
                _ if self.words.last() == Some(&"") => {}
                _ => self.words.push(""),
            }
        }
        match token.kind {
            Kind::Open => self.open.push(token.line),
            Kind::Close => drop(self.open.pop()),
            Kind::Word => self.follow_body(token, text),
            Kind::Semicolon | Kind::Dot | Kind::Other => {}
        }
        self.previous = match token.kind {
            Kind::Word => Previous::Word(text),
            Kind::Dot => Previous::Dot,
            _ => Previous::Other,
        };
    }

    /// Counts the `END`s that a SQL-standard body still needs: `CASE` ends with `END` too. A word after
    /// a dot or `AS` is a name, not a keyword.
    fn follow_body(&mut self, token: &Token, text: &str) {
        let after_begin = match self.previous {
            Previous::Dot => return,
            Previous::Word(word) if word.eq_ignore_ascii_case("as") => return,
            Previous::Word(word) => word.eq_ignore_ascii_case("begin"),
            Previous::Other => false,
        };
        match &mut self.body {
            None => {
                let creates = self.words.first().is_some_and(|word| word.eq_ignore_ascii_case("create"));
                if after_begin && creates && text.eq_ignore_ascii_case("atomic") {
                    self.body = Some((token.line, 1));
                }
            }
            Some((_, ends)) if text.eq_ignore_ascii_case("case") => *ends += 1,
            Some((_, ends)) if text.eq_ignore_ascii_case("end") => {
                *ends -= 1;
                if *ends == 0 {
                    self.body = None;
                }
            }
            Some(_) => {}
        }
    }

    fn check_closed(&self) -> Result<(), LexError> {
        if let Some((line, _)) = self.body {
            return Err(LexError { line, message: "the body that starts here with BEGIN ATOMIC has no END" });
        }
        match self.open.last() {
            Some(&line) => Err(LexError { line, message: "the parenthesis that opens here is not closed" }),
            None => Ok(()),
        }
    }

    fn finish(self, sql: &'a str) -> Option<Statement<'a>> {
        let (start, end, line) = self.span?;
        Some(Statement { text: &sql[start..end], offset: start, line, words: self.words })
    }
}

/// Works on bytes: non-ASCII bytes are part of an identifier, as in PostgreSQL.
struct Lexer<'a> {
    sql: &'a str,
    bytes: &'a [u8],
    at: usize,
    line: u32,
    /// The position up to which `line` has counted.
    counted: usize,
}

impl<'a> Lexer<'a> {
    fn new(sql: &'a str) -> Self {
        Self { sql, bytes: sql.as_bytes(), at: 0, line: 1, counted: 0 }
    }

    fn next_token(&mut self) -> Result<Option<Token>, LexError> {
        self.skip_space_and_comments()?;
        let start = self.at;
        let line = self.line_of(start);
        let Some(byte) = self.peek(0) else { return Ok(None) };
        let kind = match byte {
            b'(' => self.single(Kind::Open),
            b')' => self.single(Kind::Close),
            b';' => self.single(Kind::Semicolon),
            b'.' => self.single(Kind::Dot),
            b'\\' => {
                let message = "a backslash command belongs to psql and is not SQL; remove it";
                return Err(LexError { line, message });
            }
            b'\'' => self.string(line, false)?,
            b'"' => self.quoted_identifier(line)?,
            b'$' => self.dollar(line)?,
            b'0'..=b'9' => {
                self.skip_while(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.');
                Kind::Other
            }
            byte if starts_identifier(byte) => {
                self.skip_while(|byte| starts_identifier(byte) || byte.is_ascii_digit() || byte == b'$');
                let escapes = self.at - start == 1 && matches!(byte, b'e' | b'E');
                if escapes && self.peek(0) == Some(b'\'') { self.string(line, true)? } else { Kind::Word }
            }
            _ => self.single(Kind::Other),
        };
        Ok(Some(Token { kind, start, end: self.at, line }))
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at + ahead).copied()
    }

    fn single(&mut self, kind: Kind) -> Kind {
        self.at += 1;
        kind
    }

    fn skip_while(&mut self, accept: impl Fn(u8) -> bool) {
        while self.peek(0).is_some_and(&accept) {
            self.at += 1;
        }
    }

    fn line_of(&mut self, position: usize) -> u32 {
        let newlines = self.bytes[self.counted..position].iter().filter(|byte| **byte == b'\n').count();
        self.line += u32::try_from(newlines).unwrap_or(u32::MAX);
        self.counted = position;
        self.line
    }

    fn skip_space_and_comments(&mut self) -> Result<(), LexError> {
        loop {
            self.skip_while(is_space);
            match (self.peek(0), self.peek(1)) {
                (Some(b'-'), Some(b'-')) => self.skip_while(|byte| !is_newline(byte)),
                (Some(b'/'), Some(b'*')) => self.block_comment()?,
                _ => return Ok(()),
            }
        }
    }

    fn block_comment(&mut self) -> Result<(), LexError> {
        let line = self.line_of(self.at);
        let mut depth = 0_usize;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(b'/'), Some(b'*')) => (depth, self.at) = (depth + 1, self.at + 2),
                (Some(b'*'), Some(b'/')) => {
                    (depth, self.at) = (depth - 1, self.at + 2);
                    if depth == 0 {
                        return Ok(());
                    }
                }
                (Some(_), _) => self.at += 1,
                (None, _) => return Err(LexError { line, message: "the comment that opens here is not closed" }),
            }
        }
    }

    /// At the opening quote. A string continues after a line break and another quote, with the same
    /// escapes.
    fn string(&mut self, line: u32, escapes: bool) -> Result<Kind, LexError> {
        loop {
            self.at += 1;
            loop {
                match (self.peek(0), self.peek(1)) {
                    (Some(b'\\'), Some(_)) if escapes => self.at += 2,
                    (Some(b'\''), Some(b'\'')) => self.at += 2,
                    (Some(b'\''), _) => break,
                    (Some(_), _) => self.at += 1,
                    (None, _) => return Err(LexError { line, message: "the string that opens here is not closed" }),
                }
            }
            self.at += 1;
            if !self.reach_continuation() {
                return Ok(Kind::Other);
            }
        }
    }

    /// Moves to the quote of a continuation if there is one: white space and `--` comments are allowed
    /// in between, a line break is required.
    fn reach_continuation(&mut self) -> bool {
        let end = self.at;
        loop {
            self.skip_while(is_space);
            if (self.peek(0), self.peek(1)) != (Some(b'-'), Some(b'-')) {
                break;
            }
            self.skip_while(|byte| !is_newline(byte));
        }
        let broken = self.bytes[end..self.at].iter().any(|byte| is_newline(*byte));
        if broken && self.peek(0) == Some(b'\'') {
            return true;
        }
        self.at = end;
        false
    }

    fn quoted_identifier(&mut self, line: u32) -> Result<Kind, LexError> {
        self.at += 1;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(b'"'), Some(b'"')) => self.at += 2,
                (Some(b'"'), _) => return Ok(self.single(Kind::Other)),
                (Some(_), _) => self.at += 1,
                (None, _) => {
                    return Err(LexError { line, message: "the quoted identifier that opens here is not closed" });
                }
            }
        }
    }

    /// At a `$`: a dollar quote with or without a tag, or a parameter, or a stray sign.
    fn dollar(&mut self, line: u32) -> Result<Kind, LexError> {
        let start = self.at;
        self.at += 1;
        if self.peek(0).is_some_and(starts_identifier) {
            self.skip_while(|byte| starts_identifier(byte) || byte.is_ascii_digit());
        }
        if self.peek(0) != Some(b'$') {
            self.at = start + 1;
            return Ok(Kind::Other);
        }
        self.at += 1;
        let delimiter = &self.sql[start..self.at];
        match self.sql[self.at..].find(delimiter) {
            Some(length) => {
                self.at += length + delimiter.len();
                Ok(Kind::Other)
            }
            None => Err(LexError { line, message: "the dollar quote that opens here is not closed" }),
        }
    }
}

fn starts_identifier(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn is_newline(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(sql: &str) -> Result<Vec<Statement<'_>>, LexError> {
        statements(sql).collect()
    }

    fn texts(sql: &str) -> Vec<&str> {
        all(sql).expect("readable").into_iter().map(|statement| statement.text).collect()
    }

    #[test]
    fn a_delimiter_counts_between_tokens_alone() {
        let sql = "CREATE TABLE a (\n\n\nid int)\n\n\nSELECT $$\n\n\n$$, '\n\n\n'\n\n\n-- x\n";
        let expected = "CREATE TABLE a (\n\n\nid int);\n\n\nSELECT $$\n\n\n$$, '\n\n\n';\n\n\n-- x\n";
        assert_eq!(delimited(sql, "\n\n\n").expect("readable"), expected);
        assert_eq!(delimited("SELECT 1\n-- end\nSELECT 2", "-- end").expect("readable"), "SELECT 1;\n-- end\nSELECT 2");
    }

    #[test]
    fn few_words_of_a_long_statement_are_kept() {
        let long = format!("COPY t FROM stdin {}", "x ".repeat(1000));
        let found = all(&long).expect("readable");
        assert!(found[0].contains(&["FROM", "STDIN"]) && found[0].words.len() == WORDS);
    }

    #[test]
    fn only_top_level_semicolons_separate() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            (" ;; ;\n-- only a comment\n/* ; */", &[]),
            ("SELECT 1; SELECT 2", &["SELECT 1", "SELECT 2"]),
            ("SELECT ';'; SELECT 'it''s; fine';", &["SELECT ';'", "SELECT 'it''s; fine'"]),
            (r"SELECT 'a\'; SELECT 2", &[r"SELECT 'a\'", "SELECT 2"]),
            (r"SELECT E'a\'; b'; SELECT 2", &[r"SELECT E'a\'; b'", "SELECT 2"]),
            (r"SELECT e'\\'; SELECT 2", &[r"SELECT e'\\'", "SELECT 2"]),
            ("SELECT E'a' -- c\n '\\'; b'; SELECT 2", &["SELECT E'a' -- c\n '\\'; b'", "SELECT 2"]),
            (r"SELECT E'a' '\'; SELECT 2", &[r"SELECT E'a' '\'", "SELECT 2"]),
            (r"SELECT typE'\'; SELECT 2", &[r"SELECT typE'\'", "SELECT 2"]),
            (r#"SELECT U&"d\0061;", U&'\0061;'; x"#, &[r#"SELECT U&"d\0061;", U&'\0061;'"#, "x"]),
            (r#"SELECT "a;""b"; x"#, &[r#"SELECT "a;""b""#, "x"]),
            ("SELECT $$a; $b$ c$$; x", &["SELECT $$a; $b$ c$$", "x"]),
            ("SELECT $tag$ $$ ; $$ $Tag$ ; $tag$; x", &["SELECT $tag$ $$ ; $$ $Tag$ ; $tag$", "x"]),
            ("SELECT $é_1$;$é_1$; x", &["SELECT $é_1$;$é_1$", "x"]),
            ("SELECT $1; SELECT $2", &["SELECT $1", "SELECT $2"]),
            ("SELECT a$b$; SELECT c$b$;", &["SELECT a$b$", "SELECT c$b$"]),
            ("/* a /* b; */ ; */ SELECT 1; /**/ x", &["SELECT 1", "x"]),
            ("SELECT 1 -- ; '\n; x", &["SELECT 1", "x"]),
            ("SELECT 4/-- ;\n2; x", &["SELECT 4/-- ;\n2", "x"]),
            (
                "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2); x",
                &["CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)", "x"],
            ),
            ("SELECT 'ü'; x", &["SELECT 'ü'", "x"]),
        ];
        for (sql, expected) in cases {
            assert_eq!(texts(sql), *expected, "{sql}");
        }
    }

    #[test]
    fn a_standard_body_is_one_statement() {
        let body = "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql\nBEGIN ATOMIC\n  \
                    SELECT CASE WHEN true THEN 1 END AS end, t.case FROM t;\n  SELECT (CASE 1 WHEN 1 THEN 2 END);\nEND";
        assert_eq!(texts(&format!("{body}; SELECT 2")), [body, "SELECT 2"]);
        let procedure = "create procedure p() begin /* c */ atomic insert into t values (1); end";
        assert_eq!(texts(&format!("{procedure};COMMIT")), [procedure, "COMMIT"]);
        assert_eq!(texts("BEGIN; ATOMIC; END"), ["BEGIN", "ATOMIC", "END"]);
        assert_eq!(texts("CREATE TABLE begin (atomic int); x"), ["CREATE TABLE begin (atomic int)", "x"]);
    }

    #[test]
    fn lines_are_those_of_the_first_token() {
        let lines: Vec<u32> = all("-- one\n\nSELECT 1;\n/* a\nb */ SELECT\n2;\r\nSELECT $$\n\n$$; SELECT 3")
            .expect("readable")
            .iter()
            .map(|statement| statement.line)
            .collect();
        assert_eq!(lines, [3, 5, 7, 9]);
    }

    #[test]
    fn words_are_unquoted_and_outside_of_parentheses() {
        let found = all("copy \"from\" (stdin) FROM /* x */ StdIn").expect("readable");
        assert!(found[0].starts_with(&["COPY"]) && found[0].contains(&["FROM", "STDIN"]));
        let found = all("COPY t FROM 'stdin' (format csv); COPY (SELECT 1) \"to\" stdout").expect("readable");
        assert!(!found[0].contains(&["FROM", "STDIN"]) && !found[1].contains(&["TO", "STDOUT"]));
    }

    #[test]
    fn an_unclosed_construct_is_refused_at_its_start() {
        let cases = [
            ("SELECT 1;\nSELECT 'a;\n\n", 2, "string"),
            ("SELECT E'a\\'", 1, "string"),
            ("\n\nSELECT \"a", 3, "quoted identifier"),
            ("SELECT $a$ $b$ $A$", 1, "dollar quote"),
            ("/* /* */\nSELECT 1", 1, "comment"),
            ("SELECT\n(1, (2)", 2, "parenthesis"),
            ("CREATE FUNCTION f() RETURNS int\nBEGIN ATOMIC SELECT 1;", 2, "BEGIN ATOMIC"),
            ("SELECT 1;\n\\i other.sql", 2, "psql"),
            ("SELECT 1 \\gexec", 1, "psql"),
        ];
        for (sql, line, word) in cases {
            let error = all(sql).expect_err(sql);
            assert_eq!(error.line, line, "{sql}");
            assert!(error.message.contains(word), "{sql}: {}", error.message);
        }
    }
}
