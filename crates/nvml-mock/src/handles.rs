//! Handles: which were given out, and what each stands for.
//!
//! A handle is the address of a small block that is never freed, so that it stays unique and that a client which
//! looks into it reads zeros. The mock itself only compares addresses: a wild pointer is one that isn't in the list.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::abi::{Answer, code};
use crate::events::EventSet;
use crate::gpm::Sample;

/// What a handle can stand for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Object {
    /// A GPU, by its position.
    Gpu(u32),
    /// A MIG device of a GPU, by its UUID, which is never used again.
    Mig { gpu: u32, uuid: String },
    /// A GPU instance by its number.
    GpuInstance { gpu: u32, id: u32 },
    /// A compute instance, by the UUID of its device.
    ComputeInstance { gpu: u32, uuid: String },
}

/// All handles of this process.
#[derive(Default)]
pub(crate) struct Handles {
    objects: HashMap<usize, Object>,
    addresses: HashMap<Object, usize>,
    sets: HashMap<usize, Arc<Mutex<EventSet>>>,
    samples: HashMap<usize, Option<Sample>>,
}

/// A new address. Blocks are of a size that a client can look into without leaving them.
fn address() -> usize {
    let block: &'static [u64; 64] = Box::leak(Box::new([0; 64]));
    std::ptr::from_ref(block).expose_provenance()
}

impl Handles {
    /// The handle of an object: always the same one.
    pub(crate) fn of<T>(&mut self, object: Object) -> *mut T {
        let known = self.addresses.get(&object).copied();
        let address = known.unwrap_or_else(|| {
            let address = address();
            self.objects.insert(address, object.clone());
            self.addresses.insert(object, address);
            address
        });
        std::ptr::with_exposed_provenance_mut(address)
    }

    /// What a handle stands for.
    pub(crate) fn object(&self, address: usize) -> Answer<Object> {
        self.objects.get(&address).cloned().ok_or(code::INVALID_ARGUMENT)
    }

    pub(crate) fn add_set<T>(&mut self, set: EventSet) -> *mut T {
        let address = address();
        self.sets.insert(address, Arc::new(Mutex::new(set)));
        std::ptr::with_exposed_provenance_mut(address)
    }

    pub(crate) fn set(&self, address: usize) -> Answer<Arc<Mutex<EventSet>>> {
        self.sets
            .get(&address)
            .map(Arc::clone)
            .ok_or(code::INVALID_ARGUMENT)
    }

    pub(crate) fn free_set(&mut self, address: usize) -> Answer {
        self.sets.remove(&address).map(drop).ok_or(code::INVALID_ARGUMENT)
    }

    pub(crate) fn add_sample<T>(&mut self) -> *mut T {
        let address = address();
        self.samples.insert(address, None);
        std::ptr::with_exposed_provenance_mut(address)
    }

    /// A place for a sample, filled or not.
    pub(crate) fn sample(&mut self, address: usize) -> Answer<&mut Option<Sample>> {
        self.samples.get_mut(&address).ok_or(code::INVALID_ARGUMENT)
    }

    pub(crate) fn free_sample(&mut self, address: usize) -> Answer {
        self.samples
            .remove(&address)
            .map(drop)
            .ok_or(code::INVALID_ARGUMENT)
    }
}
