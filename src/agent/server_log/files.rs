//! The files of PostgreSQL's logging collector: which there are, how far each was passed on, and their bound.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::long::{self, Cut};
use crate::files;

/// How the collector names its files.
pub const PREFIX: &str = "postgresql-";
/// How far each file was passed on.
const POSITIONS: &str = "positions.json";
/// The same while it is written.
const POSITIONS_NEW: &str = "positions.json.new";
/// The length of a read, and at which a line is cut, in bytes.
pub const LONGEST: usize = 256 << 10;

/// The bytes that were dropped since the agent started. They count at once: the line that names them waits for the reader
/// of the output, who may never read again.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// The bytes of PostgreSQL's log that were dropped since the agent started.
pub fn dropped_bytes() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

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
    /// Of the beginning of one line that is too long.
    pub cut: Option<Cut>,
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
                    file.position.offset = 0;
                }
                if length != file.length {
                    (file.length, file.grown) = (length, Instant::now());
                }
                continue;
            }
            let known = known.get(&name).filter(|known| known.inode == inode && known.offset <= length);
            let position = known.cloned().unwrap_or(Position { inode, offset: 0 });
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
            if self.followed[index].unread() == 0 {
                continue;
            }
            match self.read(index) {
                Ok(Read::Chunk(chunk)) => return Ok(Some(chunk)),
                Ok(Read::Unfinished) => {}
                // Somebody has removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn read(&mut self, index: usize) -> io::Result<Read> {
        let is_over = self.is_over(index);
        let file = &mut self.followed[index];
        let length = usize::try_from(file.unread()).unwrap_or(LONGEST).min(LONGEST);
        let mut bytes = vec![0; length];
        let source = File::open(self.folder.join(&file.name))?;
        let count = source.read_at(&mut bytes, file.position.offset)?;
        bytes.truncate(count);
        if count == 0 {
            return Ok(Read::Unfinished);
        }
        let (end, cut) = match bytes.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => {
                bytes.truncate(end + 1);
                (Some(file.position.offset + end as u64 + 1), None)
            }
            None if count == LONGEST => {
                let (end, cut) = long::scan(&source, file.position.offset)?;
                (end, Some(cut))
            }
            None => (None, None),
        };
        file.position.offset = match end {
            Some(end) => end,
            // Nobody will end this line.
            None if is_over && cut.is_some() => file.length,
            None if is_over => file.position.offset + count as u64,
            None => return Ok(Read::Unfinished),
        };
        Ok(Read::Chunk(Chunk { kind: file.kind, bytes, cut }))
    }

    /// Whether the collector has begun another file of this kind, and none of its lines came to this one since: a clock
    /// that was put back leads to a name that was used.
    fn has_successor(&self, index: usize) -> bool {
        let file = &self.followed[index];
        self.followed[index + 1..].iter().any(|later| later.kind == file.kind && later.grown >= file.grown)
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
            let bytes = if let Some(index) = (0..self.followed.len()).find(|index| self.has_successor(*index)) {
                let path = self.folder.join(&self.followed[index].name);
                let length = fs::metadata(&path).map_or(0, |metadata| metadata.len());
                files::remove_file(&path)?;
                let file = self.followed.remove(index);
                length.saturating_sub(file.position.offset)
            } else if let Some(file) = self.followed.iter_mut().max_by_key(|file| file.length) {
                // The collector appends: its next line is the first.
                OpenOptions::new().write(true).open(self.folder.join(&file.name))?.set_len(0)?;
                let unread = file.unread();
                (file.length, file.position.offset) = (0, 0);
                unread
            } else {
                return Ok(());
            };
            self.dropped += bytes;
            DROPPED.fetch_add(bytes, Ordering::Relaxed);
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
    /// A line that is still written.
    Unfinished,
}
