//! Names in bpffs, which allows no dot.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf, absolute};

/// The name of the instance behind `socket`: its absolute path, with `-` for `/` and `_` and two
/// hexadecimal digits for everything else that is neither a letter nor a digit. No two sockets share
/// one.
pub(super) fn instance(socket: &Path) -> String {
    let resolved = resolve(socket);
    let path = resolved.as_os_str().as_bytes();
    escape(path.strip_prefix(b"/").unwrap_or(path))
}

/// The path with its directory's links followed, where that exists.
fn resolve(socket: &Path) -> PathBuf {
    let socket = absolute(socket).unwrap_or_else(|_| socket.to_owned());
    let directory = socket.parent().and_then(|path| path.canonicalize().ok());
    match (directory, socket.file_name()) {
        (Some(directory), Some(name)) => directory.join(name),
        _ => socket,
    }
}

/// Any bytes as a name.
pub(super) fn escape(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut name, byte| {
        match byte {
            b'/' => name.push('-'),
            byte if byte.is_ascii_alphanumeric() => name.push(char::from(*byte)),
            byte => name.push_str(&format!("_{byte:02x}")),
        }
        name
    })
}

/// What [`escape`] was given; `None` if the name is none of its own.
pub(super) fn unescape(name: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = name.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'-' => bytes.push(b'/'),
            b'_' => {
                let (digits, after) = rest.split_at_checked(2)?;
                bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
                rest = after;
            }
            byte => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_named_after_its_socket() {
        let name = |path: &str| instance(Path::new(path));
        assert_eq!(name("/nowhere/lbd.sock"), "nowhere-lbd_2esock");
        assert_ne!(name("/nowhere/a-b"), name("/nowhere/a/b"));
        assert_ne!(name("/nowhere/a.b"), name("/nowhere/a_b"));
    }

    #[test]
    fn links_on_the_way_to_a_socket_make_no_other_instance() {
        let directory = tempfile::tempdir().unwrap();
        let (real, link) = (directory.path().join("run"), directory.path().join("var"));
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert_eq!(
            instance(&real.join("lbd.sock")),
            instance(&link.join("lbd.sock"))
        );
    }

    #[test]
    fn names_come_back() {
        for name in ["eth0.100", "br-lan", "wan_0", "ens3f0np0", "\u{e9}"] {
            let escaped = escape(name.as_bytes());
            assert!(
                !escaped.contains('.') && !escaped.contains('-'),
                "{escaped}"
            );
            assert_eq!(unescape(&escaped).as_deref(), Some(name));
        }
        assert_eq!(unescape("eth0_2"), None);
    }
}
