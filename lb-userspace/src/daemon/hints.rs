//! What to do next, for somebody who has just started lbd without a service.

use std::path::{Path, PathBuf};

use crate::control::SOCKET_DEFAULT;

/// How lbctl is called from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// The command: `lbctl`, or its path where it is not in `PATH`.
    command: String,
    /// Whether lbd was started through sudo, so that its socket is root's.
    sudo: Sudo,
}

/// Whether a command needs sudo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sudo {
    Needed,
    NotNeeded,
}

impl Caller {
    /// From the environment of this process.
    pub(super) fn find() -> Self {
        Self {
            command: command(),
            sudo: match std::env::var_os("SUDO_USER") {
                Some(_) => Sudo::Needed,
                None => Sudo::NotNeeded,
            },
        }
    }

    /// The lines that add the first service to the lbd behind `socket`.
    pub(super) fn first_service(&self, socket: &Path) -> String {
        let sudo = match self.sudo {
            Sudo::Needed => "sudo ",
            Sudo::NotNeeded => "",
        };
        let option = if socket == Path::new(SOCKET_DEFAULT) {
            String::new()
        } else {
            format!(" --socket {}", socket.display())
        };
        let lbctl = format!("{sudo}{}{option}", self.command);
        format!(
            "There is no service yet. To add one, with two backends on the same network:\n\
             \n\
             \x20 {lbctl} service add web --vip 203.0.113.10 --port 80\n\
             \x20 {lbctl} backend add web 10.0.0.11\n\
             \x20 {lbctl} backend add web 10.0.0.12\n\
             \x20 {lbctl} status\n\
             \n\
             With DSR, the default, each backend has the VIP on its loopback and answers the client\n\
             itself; with `--forward nat` it needs nothing but a route back through this node.\n"
        )
    }
}

/// `lbctl` if a shell would find it, else the one beside this program.
fn command() -> String {
    let name = "lbctl";
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let is_in_path = std::env::split_paths(&paths).any(|directory| directory.join(name).is_file());
    let sibling = std::env::current_exe()
        .ok()
        .map(|exe| exe.with_file_name(name));
    match sibling.filter(|path| !is_in_path && path.is_file()) {
        Some(path) => shorten(path).display().to_string(),
        None => name.to_owned(),
    }
}

/// A path relative to the working directory, if it is below that.
fn shorten(path: PathBuf) -> PathBuf {
    let here = std::env::current_dir().ok();
    let relative = here.and_then(|here| path.strip_prefix(here).ok().map(Path::to_owned));
    relative.unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_named_unless_it_is_the_default() {
        let caller = Caller {
            command: "lbctl".to_owned(),
            sudo: Sudo::NotNeeded,
        };
        let text = caller.first_service(Path::new(SOCKET_DEFAULT));
        assert!(
            text.contains("  lbctl backend add web 10.0.0.11\n"),
            "{text}"
        );
        let text = caller.first_service(Path::new("/tmp/x.sock"));
        assert!(
            text.contains("  lbctl --socket /tmp/x.sock status\n"),
            "{text}"
        );
        let caller = Caller {
            sudo: Sudo::Needed,
            ..caller
        };
        assert!(
            caller
                .first_service(Path::new("/tmp/x.sock"))
                .contains("  sudo lbctl --socket")
        );
    }
}
