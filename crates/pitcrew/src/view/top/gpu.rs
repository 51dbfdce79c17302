//! One GPU in one line or two.

use pitcrew_core::Gpu;
use pitcrew_core::clocks;
use pitcrew_core::health::{Finding, Health, Verdict};
use ratatui::style::Style;
use ratatui::text::Line;

use crate::view::report::judge_known;

use super::bar::{bar, sparkline};
use super::figure::{celsius, held, memory, percent, power, with};
use super::history::{History, Kind, part};
use super::mig;
use super::paint::Paint;
use super::row::{Row, clip, width as cells, wrap};
use super::state::State;

/// Column where the name of a GPU begins.
const NAME: usize = 4;

/// One GPU and everything that its pictures need.
pub(crate) struct View<'a> {
    pub(crate) gpu: &'a Gpu,
    pub(crate) history: Option<&'a History>,
    pub(crate) name: String,
    pub(crate) health: Health,
    pub(crate) is_selected: bool,
    /// True for one frame only: there is no past to draw.
    pub(crate) still: bool,
    pub(crate) paint: Paint,
}

impl<'a> View<'a> {
    /// The GPU at `at` of the list.
    pub(crate) fn new(state: &'a State, at: usize, gpu: &'a Gpu) -> Self {
        let model = state.model();
        Self {
            gpu,
            history: model.history(gpu),
            name: model.name(gpu),
            health: judge_known(gpu, &model.bus_only),
            is_selected: !state.settings.still && state.selected() == at,
            still: state.settings.still,
            paint: state.settings.paint,
        }
    }

    /// Style of the verdict.
    pub(crate) fn verdict_style(&self) -> Style {
        match self.health.verdict {
            Verdict::Healthy => self.paint.good(),
            Verdict::Degraded | Verdict::Unknown => self.paint.warn(),
            Verdict::Unhealthy => self.paint.bad(),
        }
    }

    /// Temperature is marked when the card slows down for it: its own limits are what counts.
    pub(crate) fn held_style(&self) -> Style {
        match self.gpu.readings.clocks_event_reasons.value() {
            Some(&bits) if clocks::is_braked(bits) => self.paint.bad(),
            Some(0 | 1) | None => self.paint.dim(),
            Some(_) => self.paint.warn(),
        }
    }

    /// Marker, index and name.
    pub(crate) fn start(&self, name_end: usize) -> Row {
        let mut row = Row::new();
        row.push(if self.is_selected { "▸" } else { " " }, self.paint.heading())
            .right(&self.gpu.index.to_string(), NAME - 1, self.paint.name())
            .to(NAME)
            .clipped(&self.name, name_end, self.paint.name());
        row
    }

    /// How much of what is possible a figure is, as it was last read.
    pub(crate) fn now(&self, kind: Kind) -> Option<f32> {
        part(&self.gpu.readings, kind)
    }

    fn spark(&self, kind: Kind, count: usize) -> String {
        let parts = self
            .history
            .map_or(vec![None; count], |history| history.last(kind, count));
        sparkline(&parts)
    }

    /// Why the clocks are held, in at most `limit` cells: the gravest reason, and how many more. Blank where nothing
    /// holds them.
    fn held_short(&self, limit: usize) -> String {
        if self.gpu.readings.clocks_event_reasons.value() == Some(&0) {
            return String::new();
        }
        let whole = held(&self.gpu.readings);
        if cells(&whole) <= limit {
            return whole;
        }
        let mut reasons = whole.split(", ");
        let first = reasons.next().unwrap_or_default();
        clip(&format!("{first} +{}", reasons.count()), limit)
    }

    /// Two lines: who and how, and beside it two bars with their past.
    pub(crate) fn two_lines(&self, width: usize) -> Vec<Line<'static>> {
        let readings = &self.gpu.readings;
        let left = (width * 2 / 5).clamp(44, 60);
        let verdict = self.health.verdict.to_string();
        let mut first = self.start(left - 1 - cells(&verdict) - 1);
        first.right(&verdict, left - 1, self.verdict_style());
        self.meter(
            &mut first,
            left,
            width,
            ("busy", Kind::Busy, percent(&readings.utilization_gpu_percent)),
        );

        let mut second = Row::new();
        let clock = with(&readings.clock_sm_mhz, |mhz| format!("{mhz} MHz"));
        second
            .right(&celsius(&readings.temperature_c), 9, self.paint.plain())
            .right(&power(readings), 20, self.paint.plain())
            .right(&clock, 30, self.paint.plain())
            .to(31)
            .push(self.held_short(left - 1 - 31), self.held_style());
        self.meter(&mut second, left, width, ("mem", Kind::Memory, memory(readings)));
        vec![first.line(), second.line()]
    }

    /// Label, bar, figure and sparkline from column `from` to the end.
    fn meter(&self, row: &mut Row, from: usize, width: usize, what: (&str, Kind, String)) {
        let (label, kind, figure) = what;
        let figure_width = 14;
        let room = width.saturating_sub(from + 5 + figure_width);
        // What is left is shared by the bar and its past.
        let bar_width = if self.still { room } else { (room / 2).clamp(1, 24) };
        let style = match kind {
            Kind::Busy => self.paint.busy(),
            _ => self.paint.memory(),
        };
        let (filled, rest) = bar(self.now(kind), bar_width);
        row.to(from)
            .push(label.to_owned(), self.paint.dim())
            .to(from + 5)
            .push(filled, style)
            .push(rest, self.paint.dim())
            .right(&figure, from + 5 + bar_width + figure_width, self.paint.plain());
        if !self.still {
            let count = width.saturating_sub(row.width() + 1);
            row.push(" ", self.paint.plain())
                .push(self.spark(kind, count), style);
        }
    }

    /// One line, under [`heading`].
    pub(crate) fn one_line(&self, width: usize) -> Line<'static> {
        let readings = &self.gpu.readings;
        let columns = Columns::new(width, self.still);
        let mut row = self.start(columns.name_end);
        let (filled, rest) = bar(self.now(Kind::Busy), columns.bar);
        row.to(columns.busy)
            .push(filled, self.paint.busy())
            .push(rest, self.paint.dim())
            .right(
                &percent(&readings.utilization_gpu_percent),
                columns.busy + columns.bar + 6,
                self.paint.plain(),
            );
        if columns.spark > 0 {
            row.push(" ", self.paint.plain())
                .push(self.spark(Kind::Busy, columns.spark), self.paint.busy());
        }
        let (filled, rest) = bar(self.now(Kind::Memory), columns.bar);
        row.to(columns.memory)
            .push(filled, self.paint.memory())
            .push(rest, self.paint.dim())
            .right(
                &memory(readings),
                columns.memory + columns.bar + 14,
                self.paint.plain(),
            )
            .right(
                &celsius(&readings.temperature_c),
                columns.temperature_end,
                self.paint.plain(),
            )
            .right(&power(readings), columns.power_end, self.paint.plain());
        if columns.clock_end > 0 {
            let clock = with(&readings.clock_sm_mhz, |mhz| format!("{mhz} MHz"));
            row.right(&clock, columns.clock_end, self.paint.plain())
                .push("  ", self.paint.plain())
                .push(self.held_short(16), self.held_style());
        }
        row.to(columns.health)
            .push(self.health.verdict.to_string(), self.verdict_style());
        row.line()
    }

    /// The gravest finding and what to do about it, and MIG devices.
    pub(crate) fn below(&self, width: usize) -> Vec<Line<'static>> {
        let mut lines = mig::tree(self.gpu, self.paint, width);
        let Some(finding) = self.health.findings.first() else {
            return lines;
        };
        let more = match (self.health.findings.len() - 1, self.still) {
            (0, _) => String::new(),
            (more, true) => format!(" (and {more} more)"),
            (more, false) => format!(" (and {more} more: Enter)"),
        };
        lines.extend(finding_lines(
            finding,
            &more,
            self.verdict_style(),
            self.paint,
            width,
        ));
        lines
    }
}

/// What was found, and below it what to do.
pub(crate) fn finding_lines(
    finding: &Finding,
    more: &str,
    style: Style,
    paint: Paint,
    width: usize,
) -> Vec<Line<'static>> {
    let texts = [
        ("! ", format!("{}{more}", finding.what), style),
        ("  ", format!("do: {}", finding.advice), paint.plain()),
    ];
    let mut lines = Vec::new();
    for (mark, text, style) in texts {
        let wrapped = wrap(&text, width.saturating_sub(NAME + 2));
        for (at, words) in wrapped.into_iter().enumerate() {
            let mut row = Row::new();
            row.to(NAME)
                .push(if at == 0 { mark } else { "  " }, style)
                .push(words, style);
            lines.push(row.line());
        }
    }
    lines
}

/// Where the columns of one-line GPUs begin, or for numbers end.
struct Columns {
    name_end: usize,
    busy: usize,
    bar: usize,
    spark: usize,
    memory: usize,
    temperature_end: usize,
    power_end: usize,
    /// 0 where there is no room for clocks.
    clock_end: usize,
    health: usize,
}

impl Columns {
    fn new(width: usize, still: bool) -> Self {
        // What everything takes at 80 columns.
        let has_clock = width >= 120;
        let clock = if has_clock { 10 + 18 } else { 0 };
        let extra = width.saturating_sub(80 + clock);
        let name_end = NAME + 14 + (extra / 3).min(12);
        let busy = name_end + 1;
        let bar = 4 + (extra / 8).min(8);
        let used = name_end + 1 + (bar + 6) + 1 + (bar + 14) + 6 + 12 + clock + 11;
        let spark = if still {
            0
        } else {
            width.saturating_sub(used + 1).min(40)
        };
        let memory = busy + bar + 6 + 2 + spark;
        let temperature_end = memory + bar + 14 + 6;
        let power_end = temperature_end + 11;
        let clock_end = if has_clock { power_end + 10 } else { 0 };
        let health = power_end + clock + 2;
        Self {
            name_end,
            busy,
            bar,
            spark,
            memory,
            temperature_end,
            power_end,
            clock_end,
            health,
        }
    }
}

/// Heading above one-line GPUs.
pub(crate) fn heading(width: usize, still: bool, paint: Paint) -> Line<'static> {
    let columns = Columns::new(width, still);
    let mut row = Row::new();
    row.to(1)
        .push("GPU", paint.heading())
        .to(columns.busy)
        .push("BUSY", paint.heading())
        .to(columns.memory)
        .push("MEMORY", paint.heading())
        .right("TEMP", columns.temperature_end, paint.heading())
        .right("POWER", columns.power_end, paint.heading());
    if columns.clock_end > 0 {
        row.right("CLOCK", columns.clock_end, paint.heading())
            .push("  HELD BY", paint.heading());
    }
    row.to(columns.health).push("HEALTH", paint.heading());
    row.line()
}
