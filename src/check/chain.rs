//! Tries one link after the other and prints what came out.

use std::io::Write;
use std::time::{Duration, Instant};

/// How long one link may take: somebody waits in front of the terminal.
const PATIENCE: Duration = Duration::from_secs(15);

/// A link that holds: what the next one needs, and what there is to tell.
pub struct Holds<T> {
    /// What the next link needs.
    pub value: T,
    /// What there is to tell; empty if the link's name says all.
    pub detail: String,
}

/// A link that is broken.
pub struct Broken {
    /// What happened.
    pub problem: String,
    /// What to do.
    pub advice: &'static str,
}

/// What is printed so far.
pub struct Chain<W> {
    output: W,
    whole: bool,
}

impl<W: Write> Chain<W> {
    /// A chain without links.
    pub fn new(output: W) -> Self {
        Self { output, whole: true }
    }

    /// Whether every link held.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Tries a link and prints its line. Without a future it is skipped: a link that it needs
    /// is broken.
    pub async fn link<T>(
        &mut self,
        name: &str,
        work: Option<impl Future<Output = Result<Holds<T>, Broken>>>,
    ) -> Option<T> {
        let Some(work) = work else {
            self.print("skip", None, name, "it needs a link above");
            return None;
        };
        let started = Instant::now();
        let result = tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| {
            let problem = format!("no answer within {} s", PATIENCE.as_secs());
            Err(Broken { problem, advice: "try again; if it stays so, look at the load and the network of this pod" })
        });
        let took = Some(started.elapsed());
        match result {
            Ok(Holds { value, detail }) => {
                self.print("ok", took, name, &detail);
                Some(value)
            }
            Err(Broken { problem, advice }) => {
                self.whole = false;
                self.print("FAIL", took, name, &format!("{problem}\n{:20}{advice}", ""));
                None
            }
        }
    }

    fn print(&mut self, verdict: &str, took: Option<Duration>, name: &str, detail: &str) {
        let took = took.map_or_else(|| "-".to_owned(), |took| took.as_millis().to_string());
        let separator = if detail.is_empty() { "" } else { ": " };
        // A terminal that is gone reads no exit code either.
        let _ = writeln!(self.output, "{verdict:<5}{took:>8} ms    {name}{separator}{detail}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_needs_a_broken_link_is_skipped_and_all_else_is_tried() {
        let mut output = Vec::new();
        let mut chain = Chain::new(&mut output);
        let broken = async { Err::<Holds<()>, _>(Broken { problem: "it is sealed".into(), advice: "unseal it" }) };
        let vault = chain.link("Vault answers", Some(broken)).await;
        let needs_vault = vault.map(|()| async { Ok(Holds { value: (), detail: String::new() }) });
        chain.link("the login", needs_vault).await;
        let holds = async { Ok(Holds { value: 7, detail: "17.5".to_owned() }) };
        assert_eq!(chain.link("PostgreSQL", Some(holds)).await, Some(7));
        assert!(!chain.is_whole());
        let text = String::from_utf8(output).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("FAIL") && lines[0].ends_with("Vault answers: it is sealed"), "{text}");
        assert_eq!(lines[1].trim(), "unseal it");
        assert_eq!(lines[2], "skip        - ms    the login: it needs a link above");
        assert!(lines[3].starts_with("ok") && lines[3].ends_with(" ms    PostgreSQL: 17.5"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_that_never_answers_is_broken() {
        let mut output = Vec::new();
        let mut chain = Chain::new(&mut output);
        let never = std::future::pending::<Result<Holds<()>, Broken>>();
        assert_eq!(chain.link("PostgreSQL", Some(never)).await, None);
        assert!(!chain.is_whole());
    }
}
