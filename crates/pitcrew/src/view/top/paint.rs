//! Styles by what they say. What a colour says is always also there in words.

use ratatui::style::{Color, Modifier, Style};

/// Whether there is colour. Bold and dim are no colours, and stay.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint {
    /// True with colours.
    pub(crate) colour: bool,
}

impl Paint {
    fn of(self, color: Color) -> Style {
        if self.colour {
            Style::new().fg(color)
        } else {
            Style::new()
        }
    }

    /// Headings.
    pub(crate) fn heading(self) -> Style {
        self.of(Color::Cyan).add_modifier(Modifier::BOLD)
    }

    /// What a GPU or a process is called.
    #[expect(clippy::unused_self, reason = "asked like the others")]
    pub(crate) fn name(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// Labels and what is of less weight.
    #[expect(clippy::unused_self, reason = "asked like the others")]
    pub(crate) fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// Figures.
    #[expect(clippy::unused_self, reason = "asked like the others")]
    pub(crate) fn plain(self) -> Style {
        Style::new()
    }

    /// All is well.
    pub(crate) fn good(self) -> Style {
        self.of(Color::Green)
    }

    /// Look at it.
    pub(crate) fn warn(self) -> Style {
        self.of(Color::Yellow)
    }

    /// It is wrong.
    pub(crate) fn bad(self) -> Style {
        self.of(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// Utilisation.
    pub(crate) fn busy(self) -> Style {
        self.of(Color::Green)
    }

    /// Memory.
    pub(crate) fn memory(self) -> Style {
        self.of(Color::Cyan)
    }

    /// Power.
    pub(crate) fn power(self) -> Style {
        self.of(Color::Magenta)
    }

    /// Temperature.
    pub(crate) fn temperature(self) -> Style {
        self.of(Color::Yellow)
    }
}
