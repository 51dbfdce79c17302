//! From a tree and data to text.

use super::parser::{Branch, Node, Operand, Pipeline, Template};
use super::{Datum, TemplateError, functions};

/// Nodes that are visited, and bytes that are written, at most: no template of a page needs more.
const MAX_STEPS: usize = 100_000;
const MAX_OUTPUT: usize = 1 << 20;
/// Templates that call templates.
const MAX_CALLS: usize = 32;

pub(super) fn run(template: &Template, base: &str, data: &Datum) -> Result<String, TemplateError> {
    let mut run = Run {
        template,
        base,
        out: String::new(),
        variables: vec![(String::new(), data.clone())],
        steps: 0,
        calls: 0,
    };
    run.list(&template.root, data)?;
    Ok(run.out)
}

struct Run<'a> {
    template: &'a Template,
    base: &'a str,
    out: String,
    /// The innermost is last; `$` has the empty name.
    variables: Vec<(String, Datum)>,
    steps: usize,
    calls: usize,
}

/// How a list of nodes ended.
#[derive(PartialEq)]
enum Flow {
    On,
    Break,
    Continue,
}

impl Run<'_> {
    fn step(&mut self, line: usize) -> Result<(), TemplateError> {
        self.steps += 1;
        if self.steps > MAX_STEPS || self.out.len() > MAX_OUTPUT {
            return Err(TemplateError::unknown(line, "the template goes on for too long"));
        }
        Ok(())
    }

    fn write(&mut self, text: &str, line: usize) -> Result<(), TemplateError> {
        if self.out.len() + text.len() > MAX_OUTPUT {
            return Err(TemplateError::unknown(line, "the template gives too much text"));
        }
        self.out.push_str(text);
        Ok(())
    }

    /// Runs nodes; what they declare is gone afterwards.
    fn list(&mut self, nodes: &[Node], dot: &Datum) -> Result<Flow, TemplateError> {
        let mark = self.variables.len();
        for node in nodes {
            let flow = self.node(node, dot)?;
            if flow != Flow::On {
                self.variables.truncate(mark);
                return Ok(flow);
            }
        }
        self.variables.truncate(mark);
        Ok(Flow::On)
    }

    fn node(&mut self, node: &Node, dot: &Datum) -> Result<Flow, TemplateError> {
        match node {
            Node::Text(text) => self.write(text, 1)?,
            Node::Action(pipeline) => {
                self.step(pipeline.line)?;
                let value = self.pipeline(pipeline, dot)?;
                if pipeline.variables.is_empty() {
                    let text = functions::printed(&value, pipeline.line)?;
                    self.write(&text, pipeline.line)?;
                }
            }
            Node::If(branch) => return self.choose(branch, dot, false),
            Node::With(branch) => return self.choose(branch, dot, true),
            Node::Range(branch) => self.range(branch, dot)?,
            Node::Template { line, name, argument } => self.call(*line, name, argument.as_ref(), dot)?,
            Node::Break(_) => return Ok(Flow::Break),
            Node::Continue(_) => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn choose(&mut self, branch: &Branch, dot: &Datum, with: bool) -> Result<Flow, TemplateError> {
        let line = branch.pipeline.line;
        self.step(line)?;
        let mark = self.variables.len();
        let value = self.pipeline(&branch.pipeline, dot)?;
        let flow = if functions::truth(&value, line)? {
            self.list(&branch.then, if with { &value } else { dot })
        } else {
            self.list(&branch.otherwise, dot)
        };
        self.variables.truncate(mark);
        flow
    }

    fn range(&mut self, branch: &Branch, dot: &Datum) -> Result<(), TemplateError> {
        let line = branch.pipeline.line;
        self.step(line)?;
        let mark = self.variables.len();
        let plain = Pipeline {
            variables: Vec::new(),
            ..branch.pipeline.clone()
        };
        if !branch.pipeline.variables.is_empty() && !branch.pipeline.declares {
            return Err(TemplateError::unknown(line, "`range` that sets old variables"));
        }
        let items: Vec<(Datum, Datum)> = match self.pipeline(&plain, dot)? {
            Datum::List(items) => (0..).map(Datum::Int).zip(items).collect(),
            Datum::Map { entries, .. } => entries
                .into_iter()
                .map(|(key, value)| (Datum::Text(key), value))
                .collect(),
            Datum::Nil => Vec::new(),
            Datum::Unknown(name) => return Err(unknown(line, &name)),
            _ => return Err(TemplateError::unknown(line, "`range` over what is no list")),
        };
        if items.is_empty() {
            self.list(&branch.otherwise, dot)?;
        }
        for (key, item) in items {
            self.step(line)?;
            match branch.pipeline.variables.as_slice() {
                [value] => self.variables.push((value.clone(), item.clone())),
                [index, value] => {
                    self.variables.push((index.clone(), key));
                    self.variables.push((value.clone(), item.clone()));
                }
                _ => {}
            }
            let flow = self.list(&branch.then, &item)?;
            self.variables.truncate(mark);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(())
    }

    fn call(
        &mut self,
        line: usize,
        name: &str,
        argument: Option<&Pipeline>,
        dot: &Datum,
    ) -> Result<(), TemplateError> {
        self.step(line)?;
        let argument = match argument {
            Some(pipeline) => self.pipeline(pipeline, dot)?,
            None => Datum::Nil,
        };
        // K3s defines `base` after the user's own templates, so that it wins.
        if name == "base" {
            return match self.variables.first() {
                Some((_, data)) if *data == argument => {
                    let base = self.base;
                    self.write(base, line)
                }
                _ => Err(TemplateError::unknown(
                    line,
                    "`base` is given something else than all of the data",
                )),
            };
        }
        let Some(body) = self.template.defined.get(name) else {
            return Err(TemplateError::refused(
                line,
                format!("no template is called `{name}`"),
            ));
        };
        self.calls += 1;
        if self.calls > MAX_CALLS {
            return Err(TemplateError::unknown(
                line,
                "templates call each other too deeply",
            ));
        }
        let outer = std::mem::replace(&mut self.variables, vec![(String::new(), argument.clone())]);
        let done = self.list(body, &argument);
        self.variables = outer;
        self.calls -= 1;
        done.map(drop)
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Datum) -> Result<Datum, TemplateError> {
        let line = pipeline.line;
        let mut value = None;
        for command in &pipeline.commands {
            self.step(line)?;
            value = Some(self.command(command, value, dot, line)?);
        }
        let value = value.unwrap_or(Datum::Nil);
        match pipeline.variables.as_slice() {
            [] => {}
            [name] if pipeline.declares => self.variables.push((name.clone(), value.clone())),
            [name] => match self.variables.iter_mut().rev().find(|(known, _)| known == name) {
                Some((_, known)) => *known = value.clone(),
                None => {
                    return Err(TemplateError::refused(
                        line,
                        format!("no variable is called `${name}`"),
                    ));
                }
            },
            _ => return Err(TemplateError::refused(line, "two variables outside of `range`")),
        }
        Ok(value)
    }

    fn command(
        &mut self,
        operands: &[Operand],
        piped: Option<Datum>,
        dot: &Datum,
        line: usize,
    ) -> Result<Datum, TemplateError> {
        let Some((first, rest)) = operands.split_first() else {
            return Err(TemplateError::refused(line, "a value is missing in an action"));
        };
        let Operand::Function(function) = first else {
            if !rest.is_empty() || piped.is_some() {
                return Err(TemplateError::refused(line, "arguments for what is no function"));
            }
            return self.operand(first, dot, line);
        };
        // These two stop at the first argument that decides.
        if let word @ ("and" | "or") = function.as_str() {
            let mut last = None;
            for operand in rest {
                let value = self.operand(operand, dot, line)?;
                if functions::truth(&value, line)? == (word == "or") {
                    return Ok(value);
                }
                last = Some(value);
            }
            return piped
                .or(last)
                .ok_or_else(|| TemplateError::refused(line, format!("`{word}` without arguments")));
        }
        let mut arguments = Vec::new();
        for operand in rest {
            arguments.push(self.operand(operand, dot, line)?);
        }
        arguments.extend(piped);
        functions::call(function, &arguments, line)
    }

    fn operand(&mut self, operand: &Operand, dot: &Datum, line: usize) -> Result<Datum, TemplateError> {
        self.step(line)?;
        match operand {
            Operand::Dot => Ok(dot.clone()),
            Operand::Nil => Ok(Datum::Nil),
            Operand::Bool(flag) => Ok(Datum::Bool(*flag)),
            Operand::Number(number) => Ok(Datum::Int(*number)),
            Operand::Text(text) => Ok(Datum::Text(text.clone())),
            Operand::Function(name) => functions::call(name, &[], line),
            Operand::Field(path) => fields(dot, path, line),
            Operand::Variable(name, path) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                let Some((_, value)) = found else {
                    return Err(TemplateError::refused(
                        line,
                        format!("no variable is called `${name}`"),
                    ));
                };
                fields(value, path, line)
            }
            Operand::Group(pipeline, path) => {
                let value = self.pipeline(pipeline, dot)?;
                fields(&value, path, line)
            }
        }
    }
}

fn unknown(line: usize, name: &str) -> TemplateError {
    TemplateError::unknown(line, format!("`{name}` is not known here"))
}

fn fields(of: &Datum, path: &[String], line: usize) -> Result<Datum, TemplateError> {
    let mut at = of;
    for name in path {
        at = match at {
            Datum::Struct(fields) => fields.get(name).ok_or_else(|| {
                TemplateError::unknown(line, format!("the field `.{name}` is not known here"))
            })?,
            Datum::Map { entries, zero } => entries.get(name).unwrap_or(zero),
            Datum::Unknown(what) => return Err(unknown(line, what)),
            Datum::Nil => {
                return Err(TemplateError::refused(
                    line,
                    format!("the field `.{name}` of what is not there"),
                ));
            }
            _ => {
                return Err(TemplateError::refused(
                    line,
                    format!("the field `.{name}` of what has no fields"),
                ));
            }
        };
    }
    Ok(at.clone())
}
