//! Which interfaces a datapath is on, for a process that has nothing to do with it but wants to know.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::name;

/// The names of the interfaces that the instance in `directory` has pinned its program on; none if there is no
/// such instance. Whether the program still is on them, the interfaces say.
///
/// # Errors
/// What the file system says.
pub fn pinned_interfaces(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory.join("links")) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut interfaces = Vec::new();
    for entry in entries {
        let file = entry?.file_name();
        let split = file.to_str().and_then(|file| file.rsplit_once('-'));
        interfaces.extend(split.and_then(|(interface, _mode)| name::unescape(interface)));
    }
    Ok(interfaces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_pins_tell_the_interfaces() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(pinned_interfaces(directory.path()).unwrap(), [""; 0]);
        let links = directory.path().join("links");
        fs::create_dir(&links).unwrap();
        let odd = format!("{}-skb", name::escape(b"lan.7-x"));
        for file in ["eth0-native", odd.as_str(), "stranger"] {
            fs::write(links.join(file), "").unwrap();
        }
        let mut interfaces = pinned_interfaces(directory.path()).unwrap();
        interfaces.sort();
        assert_eq!(interfaces, ["eth0", "lan.7-x"]);
    }
}
