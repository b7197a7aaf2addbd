//! `kubectl servicedb switchover` and `restart`: asks, and waits for the answer in status.

use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

use super::args::Connection;
use super::connection::{PluginError, annotate, connect, read};
use crate::api::names::{ANNOTATION_RESTART, ANNOTATION_SWITCHOVER, ANNOTATION_SWITCHOVER_TO};
use crate::api::{RequestState, RequestStatus, ServiceDatabase};

/// How often the answer is looked for.
const POLL: Duration = Duration::from_millis(250);

/// What is asked for.
pub enum Request {
    /// Another primary: this pod, or the healthiest.
    Switchover(Option<String>),
    /// PostgreSQL started again on every instance.
    Restart,
}

impl Request {
    fn annotations(&self, token: &str) -> Vec<(&'static str, Option<String>)> {
        match self {
            // One that an earlier request named is none of this one's.
            Self::Switchover(to) => {
                vec![(ANNOTATION_SWITCHOVER, Some(token.to_owned())), (ANNOTATION_SWITCHOVER_TO, to.clone())]
            }
            Self::Restart => vec![(ANNOTATION_RESTART, Some(token.to_owned()))],
        }
    }

    fn answer<'a>(&self, resource: &'a ServiceDatabase, token: &str) -> Option<&'a RequestStatus> {
        let status = resource.status.as_ref()?;
        let answer = match self {
            Self::Switchover(_) => status.switchover.as_ref(),
            Self::Restart => status.restart.as_ref(),
        };
        answer.filter(|answer| answer.request == token)
    }
}

/// Asks, and waits until status says what came of it; with no time to wait it does not.
pub async fn run(
    connection: &Connection,
    name: &str,
    request: &Request,
    timeout: Duration,
) -> Result<ExitCode, PluginError> {
    let (client, namespace) = connect(connection).await?;
    let resource = read(&client, &namespace, name).await?;
    let token = k8s_openapi::jiff::Timestamp::now().to_string();
    annotate(&client, &namespace, name, &request.annotations(&token)).await?;
    if timeout.is_zero() {
        println!("asked for; kubectl servicedb status {name} tells how far it is");
        return Ok(ExitCode::SUCCESS);
    }
    let deadline = Instant::now() + timeout;
    let mut told = resource.status.and_then(|status| ready_message(&status.conditions));
    loop {
        let resource = read(&client, &namespace, name).await?;
        let answer = request.answer(&resource, &token);
        if let Some(answer) = answer.filter(|answer| answer.state != RequestState::Running) {
            let message = answer.message.as_deref().unwrap_or_default();
            if answer.state == RequestState::Done {
                println!("{message}");
                return Ok(ExitCode::SUCCESS);
            }
            eprintln!("error: {message}");
            return Ok(ExitCode::FAILURE);
        }
        let now = resource.status.as_ref().and_then(|status| ready_message(&status.conditions));
        if now != told {
            if let Some(now) = now.as_ref().filter(|_| answer.is_some()) {
                println!("{now}");
            }
            told = now;
        }
        if Instant::now() >= deadline {
            let taken_up = if answer.is_some() { "it is under way" } else { "no operator has taken it up" };
            eprintln!(
                "error: no answer within {} s: {taken_up}; the request stays: kubectl servicedb status {name}",
                timeout.as_secs()
            );
            return Ok(ExitCode::FAILURE);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What is under way, as the condition Ready tells it.
fn ready_message(conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition]) -> Option<String> {
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready" && condition.status == "False")?;
    Some(ready.message.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switchover_to_nobody_in_particular_takes_back_an_earlier_name() {
        let asked = Request::Switchover(None).annotations("t");
        assert_eq!(asked, [(ANNOTATION_SWITCHOVER, Some("t".to_owned())), (ANNOTATION_SWITCHOVER_TO, None)]);
    }
}
