//! What `lbctl` does where no daemon answers.

use std::io;
use std::path::Path;

use super::Failure;
use super::grid::facts;
use super::units::duration;
use crate::control::client::ClientError;
use crate::control::proto::Pinned;
use crate::pins::peek;

/// Whether nobody listens at the socket, as opposed to somebody who does not answer.
pub(super) fn is_without_daemon(error: &ClientError) -> bool {
    let ClientError::Unreachable { source, .. } = error else {
        return false;
    };
    matches!(
        source.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

/// The datapath that goes on without its daemon; the client's error if there is none, or it cannot be
/// looked at.
pub(super) fn pinned(socket: &Path, error: ClientError) -> Result<Pinned, Failure> {
    if !is_without_daemon(&error) {
        return Err(error.into());
    }
    match peek::look(socket) {
        Ok(Some(peek)) => Ok(Pinned {
            pinned: peek.directory.display().to_string(),
            abi_version: peek.abi_version,
            unattended_s: peek.unattended.map(|span| span.as_secs()),
            interfaces: peek
                .interfaces
                .into_iter()
                .map(|(name, mode)| format!("{name} ({mode})"))
                .collect(),
        }),
        // Without root's rights nobody can tell.
        Ok(None) | Err(_) => Err(error.into()),
    }
}

/// `lbctl status` without a daemon.
pub(super) fn table(pinned: &Pinned) -> String {
    let interfaces = match pinned.interfaces.as_slice() {
        [] => "no interface".to_owned(),
        interfaces => interfaces.join(", "),
    };
    let state = match pinned.unattended_s {
        Some(span_s) => format!("{} old", duration(span_s)),
        None => "of another version: its age cannot be told".to_owned(),
    };
    facts(&[
        ("Daemon", "none: nobody listens".to_owned()),
        ("Datapath", format!("attached to {interfaces}")),
        ("State", state),
        ("Pinned", pinned.pinned.clone()),
        ("ABI version", pinned.abi_version.to_string()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datapath_without_daemon_says_how_old_its_state_is() {
        let pinned = Pinned {
            pinned: "/sys/fs/bpf/lbd/x".to_owned(),
            abi_version: 2,
            unattended_s: Some(42),
            interfaces: vec!["eth0 (native)".to_owned()],
        };
        let text = table(&pinned);
        assert!(text.contains("attached to eth0 (native)"), "{text}");
        assert!(text.contains("42s old"), "{text}");
        let unknown = Pinned {
            unattended_s: None,
            interfaces: vec![],
            ..pinned
        };
        let text = table(&unknown);
        assert!(text.contains("attached to no interface"), "{text}");
    }
}
