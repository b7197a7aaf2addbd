//! The files of PostgreSQL's logging collector: which there are, how far each was passed on, and their bound.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::files;

/// How the collector names its files.
pub const PREFIX: &str = "postgresql-";
/// How far each file was passed on.
const POSITIONS: &str = "positions.json";
/// The same while it is written.
const POSITIONS_NEW: &str = "positions.json.new";
/// The length of a read, and at which a line is cut, in bytes.
pub const LONGEST: usize = 256 << 10;

/// What a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Lines of `jsonlog`.
    Json,
    /// What the server's processes wrote past the log.
    Stray,
}

impl Kind {
    fn of(name: &str) -> Option<Self> {
        let name = name.strip_prefix(PREFIX)?;
        match name.rsplit_once('.')?.1 {
            "json" => Some(Self::Json),
            "log" => Some(Self::Stray),
            _ => None,
        }
    }
}

/// How far a file was passed on, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    inode: u64,
    offset: u64,
    /// Whether the rest of a line that was cut follows.
    skips: bool,
}

/// A file that is passed on.
struct Followed {
    name: String,
    kind: Kind,
    length: u64,
    position: Position,
    /// When it was last seen to have grown.
    grown: Instant,
}

impl Followed {
    fn unread(&self) -> u64 {
        self.length.saturating_sub(self.position.offset)
    }
}

/// Lines to pass on.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunk {
    /// What they are.
    pub kind: Kind,
    /// The lines.
    pub bytes: Vec<u8>,
    /// Whether this is the beginning of one line that is too long.
    pub is_cut: bool,
}

/// The files, in the order in which the collector began them.
pub struct Files {
    folder: PathBuf,
    bound: u64,
    /// How long a file that has a successor must have been at rest until it counts as ended: a server that has ended
    /// still writes its last lines while the next one has begun another file.
    rest: Duration,
    followed: Vec<Followed>,
    saved: BTreeMap<String, Position>,
    dropped: u64,
}

impl Files {
    /// The files of a folder, which is created. A file that was passed on before goes on from there.
    ///
    /// # Errors
    /// If the folder cannot be used.
    pub fn open(folder: &Path, bound: u64, rest: Duration) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        // Without positions lines come twice, which is better than never.
        let saved = fs::read(folder.join(POSITIONS)).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let saved: BTreeMap<String, Position> = saved.unwrap_or_default();
        let folder = folder.to_owned();
        let mut files = Self { folder, bound, rest, followed: Vec::new(), saved: BTreeMap::new(), dropped: 0 };
        files.find(&saved)?;
        Ok(files)
    }

    /// Finds new files, and what has grown.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn look(&mut self) -> io::Result<()> {
        self.find(&BTreeMap::new())
    }

    fn find(&mut self, known: &BTreeMap<String, Position>) -> io::Result<()> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let Some(kind) = Kind::of(&name) else { continue };
            match entry.metadata() {
                Ok(metadata) => found.push((metadata.modified()?, name, kind, metadata.ino(), metadata.len())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let is_there = |file: &Followed| {
            found.iter().any(|(_, name, _, inode, _)| *name == file.name && *inode == file.position.inode)
        };
        self.followed.retain(is_there);
        // Not by their names: the clock of the collector's time zone is put back once a year.
        found.sort();
        for (_, name, kind, inode, length) in found {
            if let Some(file) = self.followed.iter_mut().find(|file| file.name == name) {
                if length < file.position.offset {
                    (file.position.offset, file.position.skips) = (0, false);
                }
                if length != file.length {
                    (file.length, file.grown) = (length, Instant::now());
                }
                continue;
            }
            let known = known.get(&name).filter(|known| known.inode == inode && known.offset <= length);
            let position = known.cloned().unwrap_or(Position { inode, offset: 0, skips: false });
            self.followed.push(Followed { name, kind, length, position, grown: Instant::now() });
        }
        Ok(())
    }

    /// The next lines, oldest file first. They count as passed on with the next [`Self::save`].
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn next_chunk(&mut self) -> io::Result<Option<Chunk>> {
        for index in 0..self.followed.len() {
            while self.followed[index].unread() > 0 {
                match self.read(index) {
                    Ok(Read::Chunk(chunk)) => return Ok(Some(chunk)),
                    Ok(Read::Skipped) => {}
                    Ok(Read::Unfinished) => break,
                    // Somebody has removed it.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(None)
    }

    fn read(&mut self, index: usize) -> io::Result<Read> {
        let is_over = self.is_over(index);
        let file = &mut self.followed[index];
        let length = usize::try_from(file.unread()).unwrap_or(LONGEST).min(LONGEST);
        let mut bytes = vec![0; length];
        let count = File::open(self.folder.join(&file.name))?.read_at(&mut bytes, file.position.offset)?;
        bytes.truncate(count);
        if count == 0 {
            return Ok(Read::Unfinished);
        }
        let position = &mut file.position;
        if position.skips {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            position.skips = end.is_none();
            position.offset += end.map_or(count, |end| end + 1) as u64;
            return Ok(Read::Skipped);
        }
        let (end, is_cut) = match bytes.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => (end + 1, false),
            None if count == LONGEST => (count, true),
            // Nobody will end this line.
            None if is_over => (count, false),
            None => return Ok(Read::Unfinished),
        };
        bytes.truncate(end);
        position.offset += end as u64;
        position.skips = is_cut;
        Ok(Read::Chunk(Chunk { kind: file.kind, bytes, is_cut }))
    }

    /// Whether the collector has begun another file of this kind.
    fn has_successor(&self, index: usize) -> bool {
        self.followed[index + 1..].iter().any(|later| later.kind == self.followed[index].kind)
    }

    fn is_over(&self, index: usize) -> bool {
        self.has_successor(index) && self.followed[index].grown.elapsed() >= self.rest
    }

    /// Stores how far each file was passed on.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&mut self) -> io::Result<()> {
        let positions: BTreeMap<_, _> =
            self.followed.iter().map(|file| (file.name.clone(), file.position.clone())).collect();
        if positions != self.saved {
            let new = self.folder.join(POSITIONS_NEW);
            fs::write(&new, serde_json::to_vec(&positions)?)?;
            fs::rename(new, self.folder.join(POSITIONS))?;
            self.saved = positions;
        }
        Ok(())
    }

    /// Removes files that were passed on and will not grow.
    ///
    /// # Errors
    /// If one cannot be removed.
    pub fn remove_passed(&mut self) -> io::Result<()> {
        let is_done = |files: &Self, index: &usize| files.followed[*index].unread() == 0 && files.is_over(*index);
        while let Some(index) = (0..self.followed.len()).find(|index| is_done(self, index)) {
            files::remove_file(&self.folder.join(&self.followed[index].name))?;
            self.followed.remove(index);
        }
        Ok(())
    }

    /// Drops the oldest lines if the files together exceed their bound: whole files first, and then those that the
    /// collector writes to, which go on empty.
    ///
    /// # Errors
    /// If a file can be neither removed nor emptied.
    pub fn keep_bound(&mut self) -> io::Result<()> {
        while self.followed.iter().map(|file| file.length).sum::<u64>() > self.bound {
            if let Some(index) = (0..self.followed.len()).find(|index| self.has_successor(*index)) {
                let path = self.folder.join(&self.followed[index].name);
                let length = fs::metadata(&path).map_or(0, |metadata| metadata.len());
                files::remove_file(&path)?;
                let file = self.followed.remove(index);
                self.dropped += length.saturating_sub(file.position.offset);
            } else if let Some(file) = self.followed.iter_mut().max_by_key(|file| file.length) {
                // The collector appends: its next line is the first.
                OpenOptions::new().write(true).open(self.folder.join(&file.name))?.set_len(0)?;
                self.dropped += file.unread();
                (file.length, file.position.offset, file.position.skips) = (0, 0, false);
            }
        }
        Ok(())
    }

    /// The bytes that were dropped since the last call.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }
}

/// What was read.
enum Read {
    /// Lines.
    Chunk(Chunk),
    /// The rest of a line that was cut.
    Skipped,
    /// A line that is still written.
    Unfinished,
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const FIRST: &str = "postgresql-1.json";
    const SECOND: &str = "postgresql-2.json";
    const STRAY: &str = "postgresql-1.log";
    const BOUND: u64 = 1 << 20;

    struct Folder(PathBuf);

    impl Folder {
        fn new(test: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("servicedb-log-{test}-{}", std::process::id()));
            files::remove_tree(&folder).expect("no folder");
            Self(folder)
        }

        fn open(&self) -> Files {
            Files::open(&self.0, BOUND, Duration::ZERO).expect("a folder")
        }

        fn append(&self, name: &str, text: &str) {
            let path = self.0.join(name);
            let mut file = OpenOptions::new().create(true).append(true).open(path).expect("a file");
            file.write_all(text.as_bytes()).expect("a write");
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).expect("a folder");
            let mut names: Vec<_> =
                entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect();
            names.retain(|name| Kind::of(name).is_some());
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            // It is in the way of nobody.
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// What there is to pass on, as text.
    fn all(files: &mut Files) -> String {
        files.look().expect("a look");
        let mut text = String::new();
        while let Some(chunk) = files.next_chunk().expect("a read") {
            assert!(!chunk.is_cut);
            text += std::str::from_utf8(&chunk.bytes).expect("text");
            files.save().expect("positions");
        }
        text
    }

    #[test]
    fn each_line_is_passed_on_once_it_is_whole() {
        let folder = Folder::new("lines");
        let mut files = folder.open();
        assert_eq!(all(&mut files), "");
        folder.append(FIRST, "one\ntwo\nthr");
        assert_eq!(all(&mut files), "one\ntwo\n");
        assert_eq!(all(&mut files), "");
        folder.append(FIRST, "ee\n");
        assert_eq!(all(&mut files), "three\n");
        folder.append("another.json", "not the collector's\n");
        folder.append(STRAY, "stray\n");
        assert_eq!(all(&mut files), "stray\n");
    }

    #[test]
    fn a_file_that_was_passed_on_is_removed_once_there_is_another() {
        let folder = Folder::new("rotation");
        let mut files = folder.open();
        folder.append(FIRST, "one\n");
        folder.append(STRAY, "stray\n");
        all(&mut files);
        files.remove_passed().expect("a removal");
        assert_eq!(folder.names(), [FIRST, STRAY], "the collector writes to them");
        // Rotated between two looks, with lines in both.
        folder.append(FIRST, "two\ncut");
        folder.append(SECOND, "three\n");
        files.look().expect("a look");
        files.remove_passed().expect("a removal");
        assert_eq!(folder.names(), [FIRST, STRAY, SECOND], "nothing was read yet");
        assert_eq!(all(&mut files), "two\ncutthree\n", "nobody ends the line that was cut");
        files.remove_passed().expect("a removal");
        assert_eq!(folder.names(), [STRAY, SECOND]);
        // The clock went back.
        folder.append(FIRST, "four\n");
        assert_eq!(all(&mut files), "four\n");
        files.remove_passed().expect("a removal");
        assert_eq!(folder.names(), [FIRST, STRAY]);
    }

    #[test]
    fn a_file_with_a_successor_waits_for_its_rest() {
        let folder = Folder::new("rest");
        let mut files = Files::open(&folder.0, BOUND, Duration::from_secs(3600)).expect("a folder");
        folder.append(FIRST, "one\ncut");
        folder.append(SECOND, "two\n");
        assert_eq!(all(&mut files), "one\ntwo\n");
        files.remove_passed().expect("a removal");
        assert_eq!(folder.names(), [FIRST, SECOND]);
        folder.append(FIRST, " no more\n");
        assert_eq!(all(&mut files), "cut no more\n", "of the server that ended");
    }

    #[test]
    fn another_agent_goes_on_where_the_last_one_was() {
        let folder = Folder::new("restart");
        let mut files = folder.open();
        folder.append(FIRST, "one\ntwo\n");
        all(&mut files);
        folder.append(FIRST, "three\n");
        files.look().expect("a look");
        assert!(files.next_chunk().expect("a read").is_some(), "and then it is killed");
        let mut files = folder.open();
        assert_eq!(all(&mut files), "three\n");
        // Another file of this name.
        fs::rename(folder.0.join(FIRST), folder.0.join("kept")).expect("a rename");
        folder.append(FIRST, "a new file, as long as the one before\n");
        assert_eq!(all(&mut folder.open()), "a new file, as long as the one before\n");
        fs::write(folder.0.join(POSITIONS), "{\"").expect("a file");
        assert_eq!(all(&mut folder.open()), "a new file, as long as the one before\n", "twice, not never");
    }

    #[test]
    fn a_line_without_bound_is_cut() {
        let folder = Folder::new("long");
        let mut files = folder.open();
        let long = "x".repeat(2 * LONGEST + 7);
        folder.append(FIRST, &long);
        files.look().expect("a look");
        let chunk = files.next_chunk().expect("a read").expect("the beginning");
        assert!(chunk.is_cut && chunk.bytes.len() == LONGEST);
        assert_eq!(files.next_chunk().expect("a read"), None);
        files.save().expect("positions");
        folder.append(FIRST, "its end\nnext\n");
        assert_eq!(all(&mut folder.open()), "next\n");
        assert_eq!(all(&mut files), "next\n");
    }

    #[test]
    fn the_oldest_lines_are_dropped_and_counted() {
        let folder = Folder::new("bound");
        let mut files = folder.open();
        let line = "y".repeat(999) + "\n";
        folder.append(FIRST, &line.repeat(600));
        files.look().expect("a look");
        folder.append(SECOND, &line.repeat(600));
        files.look().expect("a look");
        assert!(files.next_chunk().expect("a read").is_some());
        let read = files.followed[0].position.offset;
        files.keep_bound().expect("a bound");
        assert_eq!(folder.names(), [SECOND]);
        assert_eq!(files.take_dropped(), 600_000 - read);
        // The collector could begin no other file.
        folder.append(SECOND, &line.repeat(600));
        files.look().expect("a look");
        files.keep_bound().expect("a bound");
        assert_eq!((files.take_dropped(), files.take_dropped()), (1_200_000, 0));
        assert_eq!(fs::metadata(folder.0.join(SECOND)).expect("a file").len(), 0);
        folder.append(SECOND, "next\n");
        assert_eq!(all(&mut files), "next\n");
    }
}
