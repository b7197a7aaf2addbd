//! A line that is too long: its beginning is passed on, and of the rest only what decides the beginning's marks is read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// How the member begins that has the context of a message. Within a text of the line its quotes would be escaped.
const CONTEXT: &[u8] = br#","context":""#;
/// The length of a read, in bytes.
const BLOCK: usize = 256 << 10;

/// What is known of a line that was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Whether its message has a context. One that has not ended counts as such, too.
    pub has_context: bool,
}

/// Where the line that begins at an offset ends, and whether its message has a context. The end is none if nobody has
/// ended the line.
///
/// # Errors
/// If the file cannot be read.
pub fn scan(file: &File, from: u64) -> io::Result<(Option<u64>, Cut)> {
    let (mut at, mut kept, mut has_context) = (from, 0, false);
    let mut bytes = vec![0; BLOCK];
    loop {
        let count = file.read_at(&mut bytes[kept..], at)?;
        if count == 0 {
            return Ok((None, Cut { has_context: true }));
        }
        let filled = kept + count;
        let newline = bytes[kept..filled].iter().position(|byte| *byte == b'\n');
        let end = newline.map_or(filled, |newline| kept + newline);
        has_context |= bytes[..end].windows(CONTEXT.len()).any(|part| part == CONTEXT);
        if let Some(newline) = newline {
            return Ok((Some(at + newline as u64 + 1), Cut { has_context }));
        }
        at += count as u64;
        // It may begin in one block and end in the next.
        kept = filled.min(CONTEXT.len() - 1);
        bytes.copy_within(filled - kept..filled, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_is_found_wherever_it_is_in_the_line() {
        let path = std::env::temp_dir().join(format!("servicedb-long-{}", std::process::id()));
        let scanned = |text: &str| {
            std::fs::write(&path, text).expect("a file");
            scan(&File::open(&path).expect("a file"), 2).expect("a read")
        };
        let found = |has_context| Cut { has_context };
        for before in (BLOCK - CONTEXT.len() - 3..BLOCK + 3).chain([0, 3 * BLOCK]) {
            let line = format!("..{}\",\"context\":\"f()\"}}", "x".repeat(before));
            assert_eq!(scanned(&format!("{line}\nnext\n")), (Some(line.len() as u64 + 1), found(true)), "{before}");
        }
        let imitated = format!("..{}\\\",\\\"context\\\":\\\"f()\"}}", "x".repeat(BLOCK));
        let next = "{\"message\":\"m\",\"context\":\"of the next line\"}\n";
        assert_eq!(scanned(&format!("{imitated}\n{next}")), (Some(imitated.len() as u64 + 1), found(false)));
        assert_eq!(scanned(&imitated), (None, found(true)), "it has not ended");
        std::fs::remove_file(&path).expect("a file");
    }
}
