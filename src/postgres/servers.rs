//! The servers of the database image: one for each major version. A data directory decides which one runs it.

use std::path::{Path, PathBuf};

use crate::contract::server_version::NEWEST;

/// The folder of the servers, as Debian's packages have it.
const SERVERS: &str = "/usr/lib/postgresql";

/// The folder with the programs of a major version; none where the image has them on its search path alone.
pub fn programs(major: u16) -> Option<PathBuf> {
    let folder = Path::new(SERVERS).join(major.to_string()).join("bin");
    folder.is_dir().then_some(folder)
}

/// Whether the image has a library for a major version, as that of an extension.
pub fn has_library(major: u16, name: &str) -> bool {
    Path::new(SERVERS).join(major.to_string()).join("lib").join(format!("{name}.so")).is_file()
}

/// The major versions that the image has, in order.
pub fn majors() -> Vec<u16> {
    let entries = std::fs::read_dir(SERVERS).into_iter().flatten().flatten();
    let majors = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut majors: Vec<_> = majors.filter(|major| programs(*major).is_some()).collect();
    majors.sort_unstable();
    majors
}

/// A program of a major version, by its path, or by its name where the image has one server on its search path.
pub fn program(major: u16, name: &str) -> PathBuf {
    programs(major).map_or_else(|| PathBuf::from(name), |folder| folder.join(name))
}

/// A program for a data directory; of the newest version where the folder is none.
pub fn program_of(folder: &Path, name: &str) -> PathBuf {
    program(major_of(folder).unwrap_or(NEWEST), name)
}

/// The major version of a data directory.
pub fn major_of(folder: &Path) -> Option<u16> {
    std::fs::read_to_string(folder.join("PG_VERSION")).ok()?.trim().parse().ok()
}

/// The major version in a text such as `17.12` or `17`.
pub fn major(version: &str) -> Option<u16> {
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_directory_names_its_version() {
        let folder = std::env::temp_dir().join(format!("servicedb-servers-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        assert_eq!(major_of(&folder), None);
        std::fs::write(folder.join("PG_VERSION"), "17\n").expect("a file");
        assert_eq!(major_of(&folder), Some(17));
        std::fs::remove_dir_all(folder).expect("a folder");
        assert_eq!([major("17.12"), major("18"), major("x")], [Some(17), Some(18), None]);
        assert_eq!(program(4, "postgres"), Path::new("postgres"), "from the search path");
    }
}
