//! `INSTANCE`: what a daemon must know of the datapath that it finds.

use std::fs::File;
use std::io::Read;

use anyhow::Context;
use bytemuck::Zeroable;
use lb_common::abi::{self, Instance};

/// The only element.
const KEY: [u8; 4] = [0; 4];

/// The instance of a datapath that begins: with a hash key that outsiders do not know.
pub(crate) fn fresh_instance() -> anyhow::Result<Instance> {
    let mut instance = Instance {
        version: abi::VERSION,
        ..Instance::zeroed()
    };
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(bytemuck::bytes_of_mut(&mut instance.hash_key)))
        .context("cannot read a hash key from /dev/urandom")?;
    Ok(instance)
}

impl super::RawMap {
    /// The version of all layouts, which stands first in `INSTANCE` of whatever version; 0 if it was
    /// not written.
    pub(crate) fn abi_version(&self) -> std::io::Result<u32> {
        let value = self.get(&KEY)?.unwrap_or_default();
        let version = value.first_chunk().copied().unwrap_or_default();
        Ok(u32::from_ne_bytes(version))
    }

    /// `INSTANCE` of this version.
    pub(crate) fn instance(&self) -> std::io::Result<Instance> {
        let value = self.get(&KEY)?.unwrap_or_default();
        bytemuck::try_pod_read_unaligned(&value)
            .map_err(|_| std::io::Error::other(format!("it is {} bytes long", value.len())))
    }

    /// Writes `INSTANCE`.
    pub(crate) fn write_instance(&self, instance: &Instance) -> std::io::Result<()> {
        self.put(&KEY, bytemuck::bytes_of(instance))
    }
}
