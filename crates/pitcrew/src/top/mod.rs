//! The live part of `pitcrew top`: who looks at the GPUs, who listens to the keyboard, and the loop between them.
//!
//! A thread looks at the GPUs, one waits for keys, one for signals; all of them send to one channel, and the loop
//! draws. So a driver that doesn't answer stops neither keys nor drawing, and a test can script everything.

#[cfg(feature = "sim")]
pub(crate) mod demo;
mod input;
mod machine;
mod screen;
mod watch;

pub(crate) use machine::machine;
pub(crate) use screen::live;
#[cfg(feature = "sim")]
pub(crate) use screen::show;
#[cfg(feature = "sim")]
pub(crate) use watch::End;
pub(crate) use watch::Feed;
