//! From tokens to a tree.

use std::collections::BTreeMap;

use super::TemplateError;
use super::lexer::{Piece, Token, pieces};

/// Blocks and parentheses inside of each other.
const MAX_DEPTH: usize = 64;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Text(String),
    Action(Pipeline),
    If(Branch),
    With(Branch),
    Range(Branch),
    Template {
        line: usize,
        name: String,
        argument: Option<Pipeline>,
    },
    Break(usize),
    Continue(usize),
}

/// `if`, `with` or `range`: an `else if` is an `if` of its own in `otherwise`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Branch {
    pub(super) pipeline: Pipeline,
    pub(super) then: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pipeline {
    pub(super) line: usize,
    /// Variables that are set, and whether they are new.
    pub(super) variables: Vec<String>,
    pub(super) declares: bool,
    pub(super) commands: Vec<Vec<Operand>>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    Dot,
    Field(Vec<String>),
    Variable(String, Vec<String>),
    Function(String),
    Nil,
    Bool(bool),
    Number(i64),
    Text(String),
    Group(Box<Pipeline>, Vec<String>),
}

/// A template and those that it defines.
#[derive(Debug, Default)]
pub(super) struct Template {
    pub(super) root: Vec<Node>,
    pub(super) defined: BTreeMap<String, Vec<Node>>,
}

pub(super) fn parse(text: &str) -> Result<Template, TemplateError> {
    let pieces = pieces(text)?;
    let last_line = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let mut parser = Parser {
        pieces: pieces.into_iter(),
        defined: BTreeMap::new(),
        last_line,
    };
    let (root, end) = parser.list(0, false)?;
    if let Some((line, end)) = end {
        let word = match end {
            End::End => "end",
            End::Else(_) => "else",
        };
        return Err(TemplateError::refused(
            line,
            format!("`{word}` that belongs to nothing"),
        ));
    }
    Ok(Template {
        root,
        defined: parser.defined,
    })
}

enum End {
    End,
    /// What follows `else`.
    Else(Vec<Token>),
}

struct Parser {
    pieces: std::vec::IntoIter<Piece>,
    defined: BTreeMap<String, Vec<Node>>,
    last_line: usize,
}

type List = (Vec<Node>, Option<(usize, End)>);

impl Parser {
    fn list(&mut self, depth: usize, in_range: bool) -> Result<List, TemplateError> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (line, tokens) = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action { line, tokens } => (line, tokens),
            };
            if depth > MAX_DEPTH {
                return Err(TemplateError::unknown(
                    line,
                    "too many blocks inside of each other",
                ));
            }
            let keyword = match tokens.first() {
                Some(Token::Word(word)) => word.as_str(),
                _ => "",
            };
            let rest = || tokens.iter().skip(1).cloned().collect::<Vec<_>>();
            match keyword {
                "end" => return Ok((nodes, Some((line, End::End)))),
                "else" => return Ok((nodes, Some((line, End::Else(rest()))))),
                "if" => nodes.push(Node::If(self.branch(line, &rest(), depth, in_range)?)),
                "with" => nodes.push(Node::With(self.branch(line, &rest(), depth, in_range)?)),
                "range" => nodes.push(Node::Range(self.branch(line, &rest(), depth, true)?)),
                "break" if in_range => nodes.push(Node::Break(line)),
                "continue" if in_range => nodes.push(Node::Continue(line)),
                "break" | "continue" => {
                    return Err(TemplateError::refused(
                        line,
                        format!("`{keyword}` outside of `range`"),
                    ));
                }
                "define" => {
                    let (name, _) = name(line, &rest())?;
                    if depth > 0 {
                        return Err(TemplateError::refused(line, "`define` inside of a block"));
                    }
                    let body = self.body(line, depth, false)?;
                    self.defined.insert(name, body);
                }
                "block" => {
                    let (name, argument) = name(line, &rest())?;
                    let body = self.body(line, depth, false)?;
                    self.defined.insert(name.clone(), body);
                    nodes.push(Node::Template { line, name, argument });
                }
                "template" => {
                    let (name, argument) = name(line, &rest())?;
                    nodes.push(Node::Template { line, name, argument });
                }
                _ => nodes.push(Node::Action(pipeline(line, &tokens)?)),
            }
        }
        Ok((nodes, None))
    }

    /// A list that ends with `end` and has no `else`.
    fn body(&mut self, line: usize, depth: usize, in_range: bool) -> Result<Vec<Node>, TemplateError> {
        match self.list(depth + 1, in_range)? {
            (nodes, Some((_, End::End))) => Ok(nodes),
            (_, Some((line, End::Else(_)))) => {
                Err(TemplateError::refused(line, "`else` that belongs to nothing"))
            }
            (_, None) => Err(self.unclosed(line)),
        }
    }

    fn unclosed(&self, line: usize) -> TemplateError {
        TemplateError::refused(
            self.last_line,
            format!("the text ends before the `end` of the block that begins in line {line}"),
        )
    }

    fn branch(
        &mut self,
        line: usize,
        tokens: &[Token],
        depth: usize,
        in_range: bool,
    ) -> Result<Branch, TemplateError> {
        if depth > MAX_DEPTH {
            return Err(TemplateError::unknown(
                line,
                "too many blocks inside of each other",
            ));
        }
        let pipeline = pipeline(line, tokens)?;
        let (then, end) = self.list(depth + 1, in_range)?;
        let otherwise = match end {
            None => return Err(self.unclosed(line)),
            Some((_, End::End)) => Vec::new(),
            Some((_, End::Else(tokens))) if tokens.is_empty() => self.body(line, depth, in_range)?,
            Some((line, End::Else(tokens))) => {
                let rest: Vec<Token> = tokens.iter().skip(1).cloned().collect();
                // The one `end` closes both.
                match tokens.first() {
                    Some(Token::Word(word)) if word == "if" => {
                        vec![Node::If(self.branch(line, &rest, depth + 1, in_range)?)]
                    }
                    Some(Token::Word(word)) if word == "with" => {
                        vec![Node::With(self.branch(line, &rest, depth + 1, in_range)?)]
                    }
                    _ => {
                        return Err(TemplateError::refused(
                            line,
                            "something other than `if` after `else`",
                        ));
                    }
                }
            }
        };
        Ok(Branch {
            pipeline,
            then,
            otherwise,
        })
    }
}

/// The name of a template and its argument.
fn name(line: usize, tokens: &[Token]) -> Result<(String, Option<Pipeline>), TemplateError> {
    match tokens.split_first() {
        Some((Token::Text(name), [])) => Ok((name.clone(), None)),
        Some((Token::Text(name), rest)) => Ok((name.clone(), Some(pipeline(line, rest)?))),
        _ => Err(TemplateError::refused(line, "a template is named by a string")),
    }
}

fn pipeline(line: usize, tokens: &[Token]) -> Result<Pipeline, TemplateError> {
    let mut reader = Reader {
        line,
        tokens,
        at: 0,
        depth: 0,
    };
    let pipeline = reader.pipeline()?;
    if reader.at < tokens.len() {
        return Err(TemplateError::refused(line, "a `)` or `,` too many in an action"));
    }
    Ok(pipeline)
}

struct Reader<'a> {
    line: usize,
    tokens: &'a [Token],
    at: usize,
    depth: usize,
}

impl Reader<'_> {
    fn refused(&self, what: &str) -> TemplateError {
        TemplateError::refused(self.line, what)
    }

    fn peek(&self, ahead: usize) -> Option<&Token> {
        self.tokens.get(self.at + ahead)
    }

    fn pipeline(&mut self) -> Result<Pipeline, TemplateError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(TemplateError::unknown(
                self.line,
                "too many parentheses inside of each other",
            ));
        }
        let (variables, declares) = self.variables();
        let mut commands = vec![self.command()?];
        while self.peek(0) == Some(&Token::Pipe) {
            self.at += 1;
            commands.push(self.command()?);
        }
        self.depth -= 1;
        Ok(Pipeline {
            line: self.line,
            variables,
            declares,
            commands,
        })
    }

    /// `$x :=`, `$x =`, `$i, $e :=`.
    fn variables(&mut self) -> (Vec<String>, bool) {
        let Some(Token::Variable(first)) = self.peek(0).cloned() else {
            return (Vec::new(), false);
        };
        let (mut names, mut used) = (vec![first], 1);
        if let (Some(Token::Comma), Some(Token::Variable(second))) = (self.peek(1), self.peek(2)) {
            names.push(second.clone());
            used = 3;
        }
        let declares = match self.peek(used) {
            Some(Token::Declare) => true,
            Some(Token::Assign) => false,
            _ => return (Vec::new(), false),
        };
        self.at += used + 1;
        (names, declares)
    }

    fn command(&mut self) -> Result<Vec<Operand>, TemplateError> {
        let mut operands = Vec::new();
        while let Some(token) = self.peek(0).cloned() {
            let operand = match token {
                Token::Pipe | Token::Close | Token::Comma => break,
                Token::Declare | Token::Assign => {
                    return Err(self.refused("an assignment where a value must stand"));
                }
                Token::Dot => self.plain(Operand::Dot),
                Token::Text(text) => self.plain(Operand::Text(text)),
                Token::Number(number) => self.plain(Operand::Number(number)),
                Token::Word(word) => self.plain(match word.as_str() {
                    "true" => Operand::Bool(true),
                    "false" => Operand::Bool(false),
                    "nil" => Operand::Nil,
                    _ => Operand::Function(word),
                }),
                Token::Variable(name) => {
                    self.at += 1;
                    Operand::Variable(name, self.fields())
                }
                Token::Field { name, .. } => {
                    self.at += 1;
                    let mut path = vec![name];
                    path.extend(self.fields());
                    Operand::Field(path)
                }
                Token::Open => {
                    self.at += 1;
                    let inner = self.pipeline()?;
                    if self.peek(0) != Some(&Token::Close) {
                        return Err(self.refused("a `(` that has no `)`"));
                    }
                    self.at += 1;
                    Operand::Group(Box::new(inner), self.fields())
                }
            };
            operands.push(operand);
        }
        if operands.is_empty() {
            return Err(self.refused("a value is missing in an action"));
        }
        Ok(operands)
    }

    fn plain(&mut self, operand: Operand) -> Operand {
        self.at += 1;
        operand
    }

    /// Fields that belong to what stands before them.
    fn fields(&mut self) -> Vec<String> {
        let mut found = Vec::new();
        while let Some(Token::Field { name, glued: true }) = self.peek(0) {
            found.push(name.clone());
            self.at += 1;
        }
        found
    }
}
