//! Where everything that pitcrew prints goes: data to standard output, the rest to standard error.

use std::io::{self, IsTerminal, Write};

use anstream::AutoStream;
use pitcrew_cli::{ColorChoice, Format, GlobalArgs};
use serde::Serialize;

use crate::error::Error;

/// The two streams of the process, with colour taken out where it isn't wanted.
pub(crate) struct Streams {
    out: AutoStream<io::Stdout>,
    err: AutoStream<io::Stderr>,
    is_terminal: bool,
    is_err_terminal: bool,
}

impl Streams {
    pub(crate) fn new(color: ColorChoice) -> Self {
        let choice = match color {
            ColorChoice::Auto => anstream::ColorChoice::Auto,
            ColorChoice::Always => anstream::ColorChoice::Always,
            ColorChoice::Never => anstream::ColorChoice::Never,
        };
        // Not locked: a thread that panics could not say so, and would wait for ever.
        let (out, err) = (io::stdout(), io::stderr());
        let (is_terminal, is_err_terminal) = (out.is_terminal(), err.is_terminal());
        Self {
            out: AutoStream::new(out, choice),
            err: AutoStream::new(err, choice),
            is_terminal,
            is_err_terminal,
        }
    }
}

/// What a command writes to, and how it should.
pub(crate) struct Output<'a> {
    out: Pipe<&'a mut dyn Write>,
    err: Pipe<&'a mut dyn Write>,
    format: Format,
    quiet: bool,
    width: Option<usize>,
    is_terminal: bool,
    live_width: Option<usize>,
    colour: bool,
}

impl<'a> Output<'a> {
    pub(crate) fn new(streams: &'a mut Streams, global: &GlobalArgs) -> Self {
        let terminal = || {
            let size = streams.is_terminal.then(terminal_size::terminal_size).flatten();
            size.map(|(width, _)| usize::from(width.0))
        };
        let width = global.width.map(usize::from).or_else(terminal);
        Self {
            is_terminal: streams.is_terminal,
            live_width: (streams.is_err_terminal && !global.quiet)
                .then(|| terminal_size::terminal_size_of(io::stderr()))
                .flatten()
                .map(|(width, _)| usize::from(width.0)),
            colour: streams.out.current_choice() != anstream::ColorChoice::Never,
            out: Pipe::new(&mut streams.out),
            err: Pipe::new(&mut streams.err),
            format: global.output,
            quiet: global.quiet,
            width,
        }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Columns to fit into; `None` where output goes to a file or a pipe: nothing is left out there.
    pub(crate) fn width(&self) -> Option<usize> {
        self.width
    }

    /// True where standard output is a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// True where colours are wanted on standard output.
    pub(crate) fn colour(&self) -> bool {
        self.colour
    }

    /// Text for people, as data.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Error> {
        self.out.write_all(text.as_bytes()).map_err(Error::Write)
    }

    /// Data for programs, in the format asked for; a table can't be made here and is JSON.
    pub(crate) fn document(&mut self, document: &impl Serialize) -> Result<(), Error> {
        let text = match self.format {
            Format::Yaml => {
                serde_saphyr::to_string(document).map_err(|error| Error::Encode(error.to_string()))?
            }
            Format::Json | Format::Table => {
                let json = serde_json::to_string_pretty(document)
                    .map_err(|error| Error::Encode(error.to_string()))?;
                json + "\n"
            }
        };
        self.text(&text)
    }

    /// Something that is worth saying and isn't data: a line on standard error, unless `--quiet`.
    pub(crate) fn remark(&mut self, line: &str) -> Result<(), Error> {
        if self.quiet {
            return Ok(());
        }
        writeln!(self.err, "{line}").map_err(Error::Write)
    }

    /// Something that happened while the command runs: a line on standard error, at once, whatever was asked.
    pub(crate) fn notice(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.err, "{line}")?;
        self.err.flush()
    }

    /// Columns of a line that is drawn again and again; `None` where standard error is no terminal, or with `--quiet`.
    pub(crate) fn live_width(&self) -> Option<usize> {
        self.live_width
    }

    /// Draws that line anew, on standard error; an empty one takes it away.
    pub(crate) fn live(&mut self, line: &str) -> Result<(), Error> {
        write!(self.err, "\r{line}\x1b[K").map_err(Error::Write)?;
        self.err.flush().map_err(Error::Write)
    }

    /// An error and its hints: on standard error, whatever was asked.
    pub(crate) fn complaint(&mut self, text: &str) -> io::Result<()> {
        self.err.write_all(text.as_bytes())
    }

    /// To be called at the end: what is still in a buffer may fail to be written.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        self.out.flush().map_err(Error::Write)
    }
}

/// A stream whose reader may go away: from then on what is written is dropped.
///
/// So `pitcrew gpus | head -1` ends quietly, and with the status that it would have had.
struct Pipe<W> {
    inner: W,
    is_closed: bool,
}

impl<W: Write> Pipe<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            is_closed: false,
        }
    }

    fn unless_closed(&mut self, error: io::Error) -> io::Result<()> {
        self.is_closed |= error.kind() == io::ErrorKind::BrokenPipe;
        if self.is_closed { Ok(()) } else { Err(error) }
    }
}

impl<W: Write> Write for Pipe<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_closed {
            return Ok(bytes.len());
        }
        match self.inner.write(bytes) {
            Ok(written) => Ok(written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => self.unless_closed(error).map(|()| bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.is_closed {
            return Ok(());
        }
        self.inner.flush().or_else(|error| self.unless_closed(error))
    }
}
