//! How often a rehearsal was broken off by the end of its container, as for lack of memory: each time the database is away
//! for a moment, so it must not begin again for ever.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

/// So often a rehearsal may begin for one request.
const MOST: usize = 2;

/// Notes that the rehearsal of this attempt begins in a pod, which has a name and a namespace.
///
/// # Errors
/// If it was broken off before too often, or the volume cannot be written.
pub fn begin(file: &Path, id: &str, (pod, namespace): (&str, &str)) -> Result<(), String> {
    // Another primary has another attempt of the same request.
    let request = id.rsplit_once(' ').map_or(id, |(request, _)| request);
    let tried = std::fs::read_to_string(file).unwrap_or_default();
    if tried.lines().any(|line| line != request) {
        end(file);
    } else if tried.lines().count() >= MOST {
        end(file);
        return Err(format!(
            "the container of {pod} was ended {MOST} times during the rehearsal: see its events (kubectl describe pod {pod} -n \
             {namespace}), and spec.resources if it was for its memory"
        ));
    }
    let added = OpenOptions::new().create(true).append(true).open(file).and_then(|mut file| {
        writeln!(file, "{request}")?;
        file.sync_all()
    });
    added.map_err(|error| format!("{}: {error}", file.display()))
}

/// Forgets them: the rehearsal has ended.
pub fn end(file: &Path) {
    if let Err(error) = std::fs::remove_file(file)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "{} cannot be removed", file.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rehearsal_that_is_broken_off_begins_once_more_and_not_again() {
        let file = std::env::temp_dir().join(format!("servicedb-tries-{}", std::process::id()));
        let begin = |id| begin(&file, id, ("chat-db-0", "messaging"));
        begin("t 12:00").expect("the first");
        begin("t 12:01").expect("the second, of the same request");
        assert!(begin("t 12:02").is_err_and(|error| error.contains("kubectl describe pod chat-db-0 -n messaging")));
        begin("t 12:03").expect("the request is made again after an answer");
        begin("t 12:04").expect("the second");
        begin("u 12:05").expect("of another request");
        begin("u 12:06").expect("the second");
        end(&file);
        begin("u 12:07").expect("it had ended");
        end(&file);
        end(&file);
    }
}
