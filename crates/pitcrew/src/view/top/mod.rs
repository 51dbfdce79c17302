//! `pitcrew top`: what it shows and how keys change that. No I/O, no clock: looks and keys come in, frames go out.
//!
//! [`Model`](model::Model) is what has been seen of the machine, [`State`] adds what the person at the keyboard
//! wants. [`frame::render`] draws a state.

mod bar;
mod card;
mod charts;
mod details;
mod figure;
mod frame;
mod gpu;
mod help;
mod history;
mod key;
mod look;
mod mig;
mod model;
mod notice;
mod paint;
mod process;
mod row;
mod state;

pub(crate) use frame::{print, render};
pub(crate) use key::Key;
pub(crate) use look::{Look, Pod, ProcessInfo, Trouble};
pub(crate) use paint::Paint;
pub(crate) use state::{Settings, State};

#[cfg(test)]
mod tests;
