//! Runs the steps of a check one after another and prints the results.

use std::io::Write;
use std::time::{Duration, Instant};

/// Timeout of one step: a user waits for the output.
const PATIENCE: Duration = Duration::from_secs(15);

/// A successful step: the value for the next one, and the detail to print.
pub struct Holds<T> {
    /// The value that the next step needs.
    pub value: T,
    /// The detail to print; may be empty.
    pub detail: String,
}

/// A failed step.
pub struct Broken {
    /// The problem.
    pub problem: String,
    /// The remedy.
    pub advice: String,
}

/// The output so far.
pub struct Chain<W> {
    output: W,
    whole: bool,
}

impl<W: Write> Chain<W> {
    /// A chain without steps.
    pub fn new(output: W) -> Self {
        Self { output, whole: true }
    }

    /// Whether every step succeeded.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Runs a step and prints its line. Without a future it is skipped: a step that it needs
    /// failed.
    pub async fn link<T>(
        &mut self,
        name: &str,
        work: Option<impl Future<Output = Result<Holds<T>, Broken>>>,
    ) -> Option<T> {
        let Some(work) = work else {
            self.print("skip", None, name, "a previous step failed");
            return None;
        };
        let started = Instant::now();
        let result = tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| {
            let problem = format!("no answer within {} s", PATIENCE.as_secs());
            let advice = "try again; if it persists, check the load and the network of this pod".to_owned();
            Err(Broken { problem, advice })
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
        // If the terminal is gone, nothing reads the exit code either.
        let _ = writeln!(self.output, "{verdict:<5}{took:>8} ms    {name}{separator}{detail}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn dependent_steps_are_skipped_and_others_run() {
        let mut output = Vec::new();
        let mut chain = Chain::new(&mut output);
        let broken =
            async { Err::<Holds<()>, _>(Broken { problem: "it is sealed".into(), advice: "unseal it".into() }) };
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
        assert_eq!(lines[2], "skip        - ms    the login: a previous step failed");
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
