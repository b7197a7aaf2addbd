//! Plugin to operator and Job: a folder of migrations as one compressed archive (tar, gzip), cut into
//! parts, each under one key of a ConfigMap. A ConfigMap's own keys hold neither `/` nor spaces, and
//! all of one has at most a MiB.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Read};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

/// The start of a key; the part and their number follow, as in `servicedb-migrations.tar.gz.1-of-3`.
const KEY: &str = "servicedb-migrations.tar.gz.";
/// The size of a part: the rest of a MiB is for the object around it, in base64.
const PART: usize = 700 << 10;
/// The largest number of parts: that of `spec.migrations.source.configMaps`.
pub const PARTS: usize = 16;
/// The largest size of the files together: the operator reads them with little memory.
pub const LIMIT: u64 = 8 << 20;
/// The largest size of one file: that of a ConfigMap, which held files until there were packs.
const FILE: u64 = 1 << 20;
/// The longest path of a file, in bytes: status and messages name it.
const PATH: usize = 1024;
/// The largest size of the archive: each file has a header of half a KiB, or three of them.
const ARCHIVE: u64 = 2 * LIMIT;

/// Packs files, by their paths in the folder: the parts, in order, by their keys. The same files always
/// give the same parts.
///
/// # Errors
/// If they are too large.
pub fn pack(files: &BTreeMap<String, Vec<u8>>) -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let size: u64 = files.values().map(|content| content.len() as u64).sum();
    if size > LIMIT {
        return Err(too_large(format!("the folder has more than {} MiB: keep data out of it", LIMIT >> 20)));
    }
    if let Some((path, _)) = files.iter().find(|(_, content)| content.len() as u64 > FILE) {
        return Err(too_large(format!("{path} has more than {} MiB: keep data out of it", FILE >> 20)));
    }
    if let Some(path) = files.keys().find(|path| path.len() > PATH) {
        return Err(too_large(format!("the path of {} has more than {PATH} bytes", base(path))));
    }
    let headers = files.keys().map(|path| if path.len() > 100 { 2048 + path.len() as u64 } else { 1024 });
    if size + headers.sum::<u64>() > ARCHIVE - 4096 {
        return Err(too_large(format!("the folder has {} files, more than are read: use an image", files.len())));
    }
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::best()));
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, content.as_slice())?;
    }
    let bytes = archive.into_inner()?.finish()?;
    let parts: Vec<&[u8]> = bytes.chunks(PART).collect();
    if parts.len() > PARTS {
        return Err(too_large(format!(
            "the folder has {} KiB when compressed, more than {PARTS} ConfigMaps hold: use an image",
            bytes.len() >> 10
        )));
    }
    let count = parts.len();
    Ok(parts.iter().enumerate().map(|(at, part)| (format!("{KEY}{}-of-{count}", at + 1), part.to_vec())).collect())
}

/// The files of a folder that may be packed; all others are given back as they are.
///
/// # Errors
/// If parts are missing, or are no archive.
pub fn unpack(files: BTreeMap<String, Vec<u8>>) -> std::io::Result<BTreeMap<String, Vec<u8>>> {
    let Some(count) = files.keys().find_map(|key| place(key)).map(|(_, count)| count) else { return Ok(files) };
    let mut parts = BTreeMap::new();
    for (key, content) in &files {
        match place(key) {
            Some((at, of)) if of == count => drop(parts.insert(at, content)),
            Some(_) => return Err(invalid(format!("{key} is a part of another folder than the other parts"))),
            None => {
                return Err(invalid(format!("{key} is beside a packed folder: put it into the folder, and pack that")));
            }
        }
    }
    if let Some(missing) = (1..=count).find(|at| !parts.contains_key(at)) {
        return Err(invalid(format!("part {missing} of {count} of the packed folder is missing")));
    }
    let bytes: Vec<u8> = parts.into_values().flatten().copied().collect();
    let mut unpacked = BTreeMap::new();
    let mut left = LIMIT;
    let mut archive = tar::Archive::new(GzDecoder::new(bytes.as_slice()).take(ARCHIVE));
    for entry in archive.entries()? {
        let entry = entry?;
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            continue;
        }
        let path = entry.path()?.to_str().ok_or_else(|| invalid("a name is not UTF-8".to_owned()))?.to_owned();
        if path.len() > PATH {
            return Err(too_large(format!("the path of {} has more than {PATH} bytes", base(&path))));
        }
        if path.starts_with('/') || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(invalid(format!("{path} is no path in a folder")));
        }
        if !kind.is_file() {
            return Err(invalid(format!("{path} is a link or no file")));
        }
        let mut content = Vec::new();
        let read = entry.take(left.min(FILE) + 1).read_to_end(&mut content)? as u64;
        if read > FILE {
            return Err(too_large(format!("{path} has more than {} MiB", FILE >> 20)));
        }
        left = left
            .checked_sub(read)
            .ok_or_else(|| too_large(format!("the packed folder has more than {} MiB", LIMIT >> 20)))?;
        if unpacked.insert(path.clone(), content).is_some() {
            return Err(invalid(format!("{path} is in the packed folder twice")));
        }
    }
    // To its end, where its checksum is; what is cut off would otherwise look like the end of the archive.
    let mut rest = archive.into_inner();
    std::io::copy(&mut rest, &mut std::io::sink())?;
    if rest.limit() == 0 {
        return Err(too_large("the packed folder has more files than are read: use an image".to_owned()));
    }
    Ok(unpacked)
}

/// The end of a long path.
fn base(path: &str) -> String {
    path.rsplit('/').next().unwrap_or_default().chars().take(100).collect()
}

/// The part that a key has, from 1, and how many there are.
fn place(key: &str) -> Option<(usize, usize)> {
    let (at, count) = key.strip_prefix(KEY)?.split_once("-of-")?;
    let (at, count) = (at.parse().ok()?, count.parse().ok()?);
    ((1..=count).contains(&at) && count <= PARTS).then_some((at, count))
}

fn too_large(message: String) -> Error {
    Error::new(ErrorKind::FileTooLarge, message)
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> BTreeMap<String, Vec<u8>> {
        // What does not compress.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .take(1_000_000)
        .collect();
        let long = format!("2026-01-01-000000_{}/up.sql", "a name with spaces ".repeat(9));
        [("1_a/up.sql".to_owned(), b"SELECT 1".to_vec()), (long, noise), ("e/m/p.sql".to_owned(), Vec::new())].into()
    }

    #[test]
    fn a_folder_comes_back_from_its_parts_in_any_order() {
        let parts = pack(&folder()).expect("packed");
        assert!(parts.len() > 1 && parts.iter().all(|(_, content)| content.len() <= PART), "{}", parts.len());
        assert_eq!(parts, pack(&folder()).expect("packed again"));
        assert!(parts.iter().all(|(key, _)| key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))));
        assert_eq!(unpack(parts.into_iter().rev().collect()).expect("unpacked"), folder());
        let plain: BTreeMap<_, _> = [("1_a.up.sql".to_owned(), b"SELECT 1".to_vec())].into();
        assert_eq!(unpack(plain.clone()).expect("as they are"), plain);
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let parts: BTreeMap<_, _> = pack(&folder()).expect("packed").into_iter().collect();
        let count = parts.len();
        let mut missing = parts.clone();
        missing.pop_first();
        let error = unpack(missing).expect_err("a part is missing").to_string();
        assert_eq!(error, format!("part 1 of {count} of the packed folder is missing"));
        let mut beside = parts.clone();
        beside.insert("2_b.up.sql".to_owned(), Vec::new());
        assert!(unpack(beside).expect_err("a file beside").to_string().starts_with("2_b.up.sql is beside"));
        let mut other = parts;
        other.insert(format!("{KEY}1-of-9"), Vec::new());
        assert!(unpack(other).is_err());
        assert!(unpack([(format!("{KEY}1-of-1"), b"no archive".to_vec())].into()).is_err());
    }

    #[test]
    fn an_archive_that_grows_without_end_or_leaves_its_folder_is_refused() {
        let zeros = vec![0; usize::try_from(LIMIT).expect("a size") + 1];
        assert!(pack(&[("1_a.up.sql".to_owned(), zeros.clone())].into()).is_err());
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::best()));
        let mut header = tar::Header::new_gnu();
        header.set_size(zeros.len() as u64);
        archive.append_data(&mut header, "1_a.up.sql", zeros.as_slice()).expect("written");
        let bytes = archive.into_inner().and_then(GzEncoder::finish).expect("written");
        let error = unpack([(format!("{KEY}1-of-1"), bytes)].into()).expect_err("too large").to_string();
        assert_eq!(error, "1_a.up.sql has more than 1 MiB");
        let many: BTreeMap<_, _> = (0..20_000).map(|number| (format!("{number}_a.up.sql"), Vec::new())).collect();
        assert!(pack(&many).expect_err("too many").to_string().contains("20000 files"));
    }
}
