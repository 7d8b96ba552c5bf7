//! The program on an interface: a BPF link, held by its pin.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use tracing::{error, warn};

use super::{PinError, Pins, entries, failed, name, remove_all, sys};
use crate::loader::attach::AttachedMode;
use crate::maps::fault;

/// A link and its pin. Dropping it leaves both as they are.
#[derive(Debug)]
pub(crate) struct PinnedLink {
    link: OwnedFd,
    path: PathBuf,
}

impl PinnedLink {
    /// Takes the program off the interface, and removes the pin.
    pub(crate) fn detach(&self) -> Result<(), PinError> {
        match sys::link_detach(self.link.as_fd()) {
            // The interface has gone, and took it along.
            Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {}
            detached => detached.map_err(failed("detach", &self.path))?,
        }
        self.unpin()
    }

    /// Removes the pin of a link whose interface has gone.
    pub(crate) fn unpin(&self) -> Result<(), PinError> {
        remove_all(&self.path)
    }

    /// Puts `program` in the place of the link's program; `false` if the interface has gone.
    fn update(&self, program: BorrowedFd<'_>) -> Result<bool, PinError> {
        match sys::link_update(self.link.as_fd(), program) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(false),
            Err(error) => Err(failed("put the new program onto", &self.path)(error)),
        }
    }
}

/// A link that an earlier daemon has left.
#[derive(Debug)]
pub(crate) struct FoundLink {
    /// The link.
    pub(crate) pin: PinnedLink,
    /// The interface's name when it was attached.
    pub(crate) interface: String,
    /// The interface's index; 0 when it has gone.
    pub(crate) ifindex: u32,
    /// How it is attached.
    pub(crate) mode: AttachedMode,
    /// The program's id.
    pub(crate) program_id: u32,
}

impl Pins {
    /// Pins the link of an interface, which must have none yet.
    pub(crate) fn pin_link(
        &self,
        link: OwnedFd,
        interface: &str,
        mode: AttachedMode,
    ) -> Result<PinnedLink, PinError> {
        let file = format!("{}-{}", name::escape(interface.as_bytes()), mode.label());
        let path = self.links().join(file);
        sys::pin(link.as_fd(), &path).map_err(failed("pin the program's link at", &path))?;
        Ok(PinnedLink { link, path })
    }

    /// All links that are pinned.
    pub(crate) fn open_links(&self) -> Result<Vec<FoundLink>, PinError> {
        let paths = entries(&self.links())?;
        paths.into_iter().filter_map(open).collect()
    }
}

/// `None` for what is not named as we name links.
fn open(path: PathBuf) -> Option<Result<FoundLink, PinError>> {
    let (interface, mode) = path.file_name()?.to_str()?.rsplit_once('-')?;
    let (interface, mode) = (name::unescape(interface)?, AttachedMode::from_label(mode)?);
    let opened = sys::get(&path).and_then(|link| Ok((sys::link_info(link.as_fd())?, link)));
    Some(match opened {
        Ok((info, link)) => Ok(FoundLink {
            pin: PinnedLink { link, path },
            interface,
            ifindex: info.ifindex,
            mode,
            program_id: info.program_id,
        }),
        Err(error) => Err(failed("open the link", &path)(error)),
    })
}

/// Puts `program` in the place of each link's program. The links of interfaces that have gone are
/// unpinned and left out. If one cannot be changed, those before it get their former programs back.
///
/// # Errors
/// [`PinError::Io`] of the link.
pub(crate) fn switch(
    links: Vec<FoundLink>,
    program: BorrowedFd<'_>,
) -> Result<Vec<FoundLink>, PinError> {
    let mut switched = Vec::with_capacity(links.len());
    let mut formers = Vec::with_capacity(links.len());
    for link in links {
        // Without CAP_SYS_ADMIN it cannot be had, and not be put back.
        let former = sys::program(link.program_id).ok().flatten();
        match link.pin.update(program) {
            Ok(true) => {
                fault::count_write();
                formers.push(former);
                switched.push(link);
            }
            Ok(false) => {
                warn!(
                    interface = link.interface,
                    "the interface has gone, and the link with it"
                );
                link.pin.unpin()?;
            }
            Err(error) => {
                roll_back(&switched, &formers);
                return Err(error);
            }
        }
    }
    Ok(switched)
}

fn roll_back(links: &[FoundLink], formers: &[Option<OwnedFd>]) {
    for (link, former) in links.iter().zip(formers) {
        let Some(former) = former else { continue };
        if let Err(error) = link.pin.update(former.as_fd()) {
            error!(
                interface = link.interface,
                "the former program is not put back: {error}"
            );
        }
    }
}
