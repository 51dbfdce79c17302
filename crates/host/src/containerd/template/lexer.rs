//! From text to tokens.

use super::TemplateError;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// `.`
    Dot,
    /// `.Name`, directly after what it belongs to or by itself; `glued` where no blank stands before it.
    Field {
        name: String,
        glued: bool,
    },
    /// `$name`; empty for `$`.
    Variable(String),
    /// A word: a keyword, a function, `true`, `false`, `nil`.
    Word(String),
    Text(String),
    Number(i64),
    Open,
    /// `)`
    Close,
    Pipe,
    Declare,
    Assign,
    Comma,
}

/// A piece of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    Text(String),
    Action { line: usize, tokens: Vec<Token> },
}

/// Cuts a template into text and actions, with trimming done and comments gone.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut found = Vec::new();
    let mut rest = text;
    let mut trim_next = false;
    // How far lines have been counted.
    let (mut counted, mut line) = (text, 1);
    loop {
        let (before, action) = match rest.split_once("{{") {
            Some((before, action)) => (before, Some(action)),
            None => (rest, None),
        };
        let trims = action.is_some_and(trim_mark);
        let mut plain = before;
        if trim_next {
            plain = plain.trim_start_matches(BLANK);
        }
        if trims {
            plain = plain.trim_end_matches(BLANK);
        }
        if !plain.is_empty() {
            found.push(Piece::Text(plain.to_owned()));
        }
        let Some(action) = action else { return Ok(found) };
        let body = if trims { &action[1..] } else { action };
        line += line_of(counted, body) - 1;
        counted = body;
        let after_blank = body.trim_start_matches(BLANK);
        if after_blank.starts_with("/*") && (trims || after_blank.len() == body.len()) {
            let Some((_, after)) = after_blank.split_once("*/") else {
                return Err(TemplateError::refused(line, "a comment that has no end"));
            };
            let (after, trim) = end_of_action(after)
                .ok_or_else(|| TemplateError::refused(line, "a comment does not end its action"))?;
            rest = after;
            trim_next = trim;
            continue;
        }
        let mut lexer = Lexer {
            whole: text,
            rest: body,
            tokens: Vec::new(),
        };
        trim_next = lexer.action()?;
        found.push(Piece::Action {
            line,
            tokens: lexer.tokens,
        });
        rest = lexer.rest;
    }
}

/// What Go takes for a blank.
const BLANK: [char; 4] = [' ', '\t', '\r', '\n'];

/// True for `- ` at the start of an action.
fn trim_mark(action: &str) -> bool {
    action
        .strip_prefix('-')
        .is_some_and(|after| after.starts_with(BLANK))
}

/// The text after the end of an action, and whether it trims, where the action ends here.
fn end_of_action(rest: &str) -> Option<(&str, bool)> {
    if let Some(after) = rest.strip_prefix("}}") {
        return Some((after, false));
    }
    let blank = rest.trim_start_matches(BLANK);
    if blank.len() < rest.len()
        && let Some(after) = blank.strip_prefix("-}}")
    {
        return Some((after, true));
    }
    None
}

fn line_of(whole: &str, rest: &str) -> usize {
    let read = whole.len().saturating_sub(rest.len());
    let before = whole.get(..read).unwrap_or_default();
    before.matches('\n').count() + 1
}

struct Lexer<'a> {
    whole: &'a str,
    rest: &'a str,
    tokens: Vec<Token>,
}

impl Lexer<'_> {
    fn line(&self) -> usize {
        line_of(self.whole, self.rest)
    }

    fn refused(&self, what: impl Into<String>) -> TemplateError {
        TemplateError::refused(self.line(), what)
    }

    /// Reads to the end of the action; true where that end trims.
    fn action(&mut self) -> Result<bool, TemplateError> {
        loop {
            if let Some((after, trim)) = end_of_action(self.rest) {
                self.rest = after;
                return Ok(trim);
            }
            let blank = self.rest.starts_with(BLANK);
            self.rest = self.rest.trim_start_matches(BLANK);
            if let Some((after, trim)) = end_of_action(self.rest) {
                self.rest = after;
                return Ok(trim);
            }
            let Some(char) = self.rest.chars().next() else {
                return Err(self.refused("an action that has no end"));
            };
            let token = self.token(char, blank)?;
            self.tokens.push(token);
        }
    }

    fn token(&mut self, char: char, blank: bool) -> Result<Token, TemplateError> {
        let simple = match char {
            '(' => Some(Token::Open),
            ')' => Some(Token::Close),
            '|' => Some(Token::Pipe),
            ',' => Some(Token::Comma),
            '=' => Some(Token::Assign),
            _ => None,
        };
        if let Some(token) = simple {
            self.advance(1);
            return Ok(token);
        }
        match char {
            ':' if self.rest.starts_with(":=") => {
                self.advance(2);
                Ok(Token::Declare)
            }
            '.' => {
                self.advance(1);
                let name = self.word();
                if name.is_empty() {
                    Ok(Token::Dot)
                } else {
                    Ok(Token::Field {
                        name,
                        glued: !blank && !self.tokens.is_empty(),
                    })
                }
            }
            '$' => {
                self.advance(1);
                Ok(Token::Variable(self.word()))
            }
            '"' => self.string().map(Token::Text),
            '`' => {
                let raw = self.rest[1..].split_once('`');
                let Some((raw, after)) = raw else {
                    return Err(self.refused("a raw string that has no end"));
                };
                let text = raw.to_owned();
                self.rest = after;
                Ok(Token::Text(text))
            }
            '\'' => self.char_constant(),
            '0'..='9' | '+' | '-' => self.number(),
            letter if letter.is_alphabetic() || letter == '_' => Ok(Token::Word(self.word())),
            other => Err(self.refused(format!("`{other}` in an action"))),
        }
    }

    fn advance(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    fn word(&mut self) -> String {
        let end = self
            .rest
            .find(|char: char| !(char.is_alphanumeric() || char == '_'))
            .unwrap_or(self.rest.len());
        let word = self.rest.get(..end).unwrap_or_default().to_owned();
        self.advance(end);
        word
    }

    fn number(&mut self) -> Result<Token, TemplateError> {
        let end = self
            .rest
            .char_indices()
            .skip(1)
            .find(|(_, char)| !(char.is_alphanumeric() || *char == '.' || *char == '_'))
            .map_or(self.rest.len(), |(at, _)| at);
        let text = self.rest.get(..end).unwrap_or_default();
        match text.parse() {
            Ok(number) => {
                let token = Token::Number(number);
                self.advance(end);
                Ok(token)
            }
            Err(_) => Err(TemplateError::unknown(
                self.line(),
                format!("the number `{text}` is not read here"),
            )),
        }
    }

    fn char_constant(&mut self) -> Result<Token, TemplateError> {
        let mut chars = self.rest.chars().skip(1);
        match (chars.next(), chars.next()) {
            (Some(char), Some('\'')) if char != '\\' => {
                self.advance(char.len_utf8() + 2);
                Ok(Token::Number(i64::from(u32::from(char))))
            }
            _ => Err(TemplateError::unknown(
                self.line(),
                "a character constant that is not read here",
            )),
        }
    }

    fn string(&mut self) -> Result<String, TemplateError> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, char)) = chars.next() {
            match char {
                '"' => {
                    self.advance(at + 1);
                    return Ok(text);
                }
                '\n' => break,
                '\\' => match chars.next().map(|(_, char)| char) {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some('r') => text.push('\r'),
                    Some(same @ ('"' | '\\')) => text.push(same),
                    _ => {
                        return Err(TemplateError::unknown(
                            self.line(),
                            "an escape in a string that is not read here",
                        ));
                    }
                },
                other => text.push(other),
            }
        }
        Err(self.refused("a string that has no end"))
    }
}
