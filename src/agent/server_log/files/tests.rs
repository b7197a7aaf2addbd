//! Tests of the collector's files.

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
        assert_eq!(chunk.cut, None);
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
    assert_eq!(files.next_chunk().expect("a read"), None, "its marks are not known before its end");
    folder.append(FIRST, "\",\"context\":\"f()\"}\nnext\n");
    files.look().expect("a look");
    let chunk = files.next_chunk().expect("a read").expect("the beginning");
    assert_eq!((chunk.cut, chunk.bytes.len()), (Some(Cut { has_context: true }), LONGEST));
    files.save().expect("positions");
    assert_eq!(all(&mut folder.open()), "next\n");
    assert_eq!(all(&mut files), "next\n");
    // The server was killed while it wrote.
    folder.append(FIRST, &long);
    files.look().expect("a look");
    folder.append(SECOND, "of the next server\n");
    files.look().expect("a look");
    let chunk = files.next_chunk().expect("a read").expect("the beginning");
    assert_eq!((chunk.cut, chunk.bytes.len()), (Some(Cut { has_context: true }), LONGEST));
    assert_eq!(all(&mut files), "of the next server\n");
}

#[test]
fn a_file_that_the_collector_came_back_to_is_not_removed() {
    let folder = Folder::new("back");
    let mut files = folder.open();
    folder.append(FIRST, "one\n");
    all(&mut files);
    folder.append(SECOND, "two\n");
    all(&mut files);
    // The clock went back between two looks.
    folder.append(FIRST, "three\n");
    assert_eq!(all(&mut files), "three\n");
    files.remove_passed().expect("a removal");
    folder.append(FIRST, "four\n");
    assert_eq!(all(&mut files), "four\n");
    assert_eq!(folder.names(), [FIRST, SECOND]);
    folder.append("postgresql-3.json", "five\n");
    assert_eq!(all(&mut files), "five\n");
    files.remove_passed().expect("a removal");
    assert_eq!(folder.names(), ["postgresql-3.json"]);
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
