//! What is shown: what has been seen, and what the person at the keyboard wants to see of it.

use std::time::Duration;

use pitcrew_core::Gpu;
use pitcrew_core::health::Verdict;

use crate::view::report::judge_known;

use super::key::Key;
use super::look::{Look, Pod};
use super::model::{Model, Process};
use super::notice::{Notice, notices};
use super::paint::Paint;

/// GPUs or processes that a page key moves by.
const PAGE: usize = 10;

/// What doesn't change while the view is there.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where the GPUs come from, e.g. `imaginary GPUs: h100x8`; empty for this machine's.
    pub(crate) source: String,
    /// Time between two looks.
    pub(crate) interval: Duration,
    /// Colour or not.
    pub(crate) paint: Paint,
    /// One frame only: nothing to press, and no past.
    pub(crate) still: bool,
    /// What to do where there is no GPU, one line each.
    pub(crate) hints: Vec<String>,
}

/// Order of the processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    Memory,
    Gpu,
    Pid,
    Pod,
}

impl Sort {
    fn next(self) -> Self {
        match self {
            Self::Memory => Self::Gpu,
            Self::Gpu => Self::Pid,
            Self::Pid => Self::Pod,
            Self::Pod => Self::Memory,
        }
    }

    /// In a word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Gpu => "GPU",
            Self::Pid => "pid",
            Self::Pod => "pod",
        }
    }
}

/// What the keys move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Focus {
    Gpus,
    Processes,
}

/// What fills the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Screen {
    Overview,
    Details,
}

/// What is shown.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) settings: Settings,
    /// Now, since the start.
    pub(crate) now: Duration,
    pub(crate) screen: Screen,
    pub(crate) help: bool,
    pub(crate) focus: Focus,
    pub(crate) sort: Sort,
    /// Which process is selected, in the order shown.
    pub(crate) process: usize,
    /// Lines that details are scrolled by.
    pub(crate) scroll: usize,
    /// Key of the selected GPU; `None` for the first.
    selected: Option<String>,
    model: Model,
    /// What is shown while paused, and since when.
    frozen: Option<(Model, Duration)>,
    quit: bool,
}

impl State {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            now: Duration::ZERO,
            screen: Screen::Overview,
            help: false,
            focus: Focus::Gpus,
            sort: Sort::Memory,
            process: 0,
            scroll: 0,
            selected: None,
            model: Model::default(),
            frozen: None,
            quit: false,
        }
    }

    /// Takes in a look. Also while paused: nothing is missing from the charts afterwards.
    pub(crate) fn update(&mut self, look: Look) {
        self.tick(look.taken);
        self.model.update(look);
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Duration) {
        self.now = self.now.max(now);
    }

    /// True when the view is to end.
    pub(crate) fn is_over(&self) -> bool {
        self.quit
    }

    /// What is shown of the machine.
    pub(crate) fn model(&self) -> &Model {
        self.frozen.as_ref().map_or(&self.model, |(model, _)| model)
    }

    /// The verdicts on the GPUs that are shown.
    pub(crate) fn verdicts(&self) -> impl Iterator<Item = Verdict> {
        let model = self.model();
        let gpus = model.gpus().iter();
        gpus.map(|gpu| judge_known(gpu, &model.bus_only).verdict)
    }

    /// True when the last look gave nothing.
    pub(crate) fn has_trouble(&self) -> bool {
        self.model.trouble.is_some()
    }

    /// For how long the view has been paused.
    pub(crate) fn paused(&self) -> Option<Duration> {
        self.frozen
            .as_ref()
            .map(|(_, since)| self.now.saturating_sub(*since))
    }

    /// What is wrong with the machine as a whole: true also while paused.
    pub(crate) fn notices(&self) -> Vec<Notice> {
        notices(&self.model, self.now, self.settings.interval)
    }

    /// Position of the selected GPU.
    pub(crate) fn selected(&self) -> usize {
        let model = self.model();
        let at = |key: &String| model.gpus().iter().position(|gpu| model.key(gpu) == *key);
        self.selected.as_ref().and_then(at).unwrap_or(0)
    }

    /// The selected GPU.
    pub(crate) fn selected_gpu(&self) -> Option<&Gpu> {
        self.model().gpus().get(self.selected())
    }

    /// All processes in the order wanted.
    pub(crate) fn processes(&self) -> Vec<Process> {
        let mut all = self.model().processes();
        let pod = |process: &Process| {
            let pod = process.info.pod.value();
            (pod.is_none(), pod.map(Pod::label))
        };
        all.sort_by(|a, b| {
            let place = |process: &Process| (process.gpu, process.gpu_instance, process.pid);
            let first = match self.sort {
                Sort::Memory => b.memory.value().cmp(&a.memory.value()),
                Sort::Gpu => std::cmp::Ordering::Equal,
                Sort::Pid => a.pid.cmp(&b.pid),
                Sort::Pod => pod(a).cmp(&pod(b)),
            };
            first.then_with(|| place(a).cmp(&place(b)))
        });
        all
    }

    /// A key was pressed.
    pub(crate) fn key(&mut self, key: Key) {
        match key {
            Key::Interrupt | Key::Char('q' | 'Q') => self.quit = true,
            // Any other key takes the help away, and does nothing else.
            _ if self.help => self.help = false,
            Key::Char('?' | 'h') => self.help = true,
            Key::Escape if self.screen == Screen::Details => self.screen = Screen::Overview,
            Key::Escape => self.quit = true,
            Key::Char('p' | ' ') => self.pause(),
            Key::Char('s') => self.sort = self.sort.next(),
            Key::Tab => {
                self.focus = match self.focus {
                    Focus::Gpus => Focus::Processes,
                    Focus::Processes => Focus::Gpus,
                }
            }
            Key::Enter => self.open(),
            Key::Up | Key::Char('k') => self.step(-1),
            Key::Down | Key::Char('j') => self.step(1),
            Key::PageUp => self.page(false),
            Key::PageDown => self.page(true),
            Key::Home | Key::Char('g') => self.go(0),
            Key::End | Key::Char('G') => self.go(usize::MAX),
            Key::Char(_) => {}
        }
    }

    fn pause(&mut self) {
        self.frozen = match self.frozen.take() {
            Some(_) => None,
            None => Some((self.model.clone(), self.now)),
        };
    }

    /// Details of the selected GPU, or of that of the selected process; and back.
    fn open(&mut self) {
        self.scroll = 0;
        if self.screen == Screen::Details {
            self.screen = Screen::Overview;
            return;
        }
        if self.focus == Focus::Processes {
            let index = self.processes().get(self.process).map(|process| process.gpu);
            let at = self
                .model()
                .gpus()
                .iter()
                .position(|gpu| Some(gpu.index) == index);
            self.focus = Focus::Gpus;
            self.go(at.unwrap_or(0));
        }
        if self.selected_gpu().is_some() {
            self.screen = Screen::Details;
        }
    }

    fn page(&mut self, down: bool) {
        if self.screen == Screen::Details {
            self.scroll = if down {
                self.scroll.saturating_add(PAGE)
            } else {
                self.scroll.saturating_sub(PAGE)
            };
            return;
        }
        let page = isize::try_from(PAGE).unwrap_or(1);
        self.step(if down { page } else { -page });
    }

    fn step(&mut self, by: isize) {
        let at = match self.focused() {
            Focus::Gpus => self.selected(),
            Focus::Processes => self.process,
        };
        self.go(at.saturating_add_signed(by));
    }

    /// Details are always of a GPU.
    fn focused(&self) -> Focus {
        match self.screen {
            Screen::Overview => self.focus,
            Screen::Details => Focus::Gpus,
        }
    }

    fn go(&mut self, to: usize) {
        match self.focused() {
            Focus::Gpus => {
                let model = self.model();
                let last = model.gpus().len().saturating_sub(1);
                self.selected = model.gpus().get(to.min(last)).map(|gpu| model.key(gpu));
                self.scroll = 0;
            }
            Focus::Processes => {
                let last = self.processes().len().saturating_sub(1);
                self.process = to.min(last);
            }
        }
    }
}
