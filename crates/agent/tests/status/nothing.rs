//! A driver and a host that nobody asks anything, for parts that need neither. The tests of the manifests have it, too.

use std::future;
use std::io;
use std::path::Path;
use std::pin::Pin;

use pitcrew_agent::deps::{Driver, Process, System};
use pitcrew_core::Inventory;
use pitcrew_core::ports::{GpuError, GpuEvent};

type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What isn't asked here.
pub(crate) struct Nothing;

impl Driver for Nothing {
    fn look(&self) -> Later<'_, Result<Inventory, GpuError>> {
        Box::pin(future::pending())
    }
    fn event(&self) -> Later<'_, GpuEvent> {
        Box::pin(future::pending())
    }
    fn release(&self) -> Later<'_, Result<(), GpuError>> {
        Box::pin(future::ready(Ok(())))
    }
}

impl System for Nothing {
    fn load_module(&self, _: &str) -> Later<'_, io::Result<()>> {
        Box::pin(future::pending())
    }
    fn make_char_device(&self, _: &Path, _: u32, _: u32) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn restart_unit<'a>(&'a self, _: &'a str) -> Later<'a, io::Result<()>> {
        Box::pin(future::pending())
    }
    fn start<'a>(
        &'a self,
        _: &'a str,
        _: &'a Path,
        _: &'a [String],
        _: &'a [(String, String)],
    ) -> Later<'a, io::Result<Box<dyn Process>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn find<'a>(&'a self, _: &'a str) -> Later<'a, io::Result<Option<Box<dyn Process>>>> {
        Box::pin(async { Ok(None) })
    }
    fn run<'a>(
        &'a self,
        _: &'a Path,
        _: &'a [String],
        _: &'a [(String, String)],
        _: &'a str,
    ) -> Later<'a, io::Result<String>> {
        Box::pin(future::pending())
    }
}
