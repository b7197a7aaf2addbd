//! A command in a message can be copied: it has the namespace of its object. A reader of status, of an event or of a log may
//! be in another one.

use std::fs;
use std::path::Path;

/// Commands whose object is in a namespace. `-n` before the verb is another word, and allowed.
const VERBS: [&str; 8] = ["servicedb", "logs", "describe", "delete", "exec", "annotate", "wait", "get"];
/// How a command names it.
const NAMESPACES: [&str; 3] = ["-n ", "--namespace ", "-A"];
/// The method that gives a name and its namespace.
const WHOLE: &str = "in_commands";

/// The text of a source file without its tests and its comments, each literal on one line.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let (mut code, mut continues) = (String::new(), false);
    for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
        let line = if continues { line.trim_start() } else { line };
        let joined = line.strip_suffix('\\');
        code.push_str(joined.unwrap_or(line));
        continues = joined.is_some();
        if !continues {
            code.push('\n');
        }
    }
    code
}

/// The commands in a file's literals, each up to the end of its literal or of its clause.
fn commands(code: &str) -> Vec<&str> {
    let end = |text: &str| {
        let quote = text.match_indices('"').map(|(at, _)| at).find(|at| !text[..*at].ends_with('\\'));
        let clause = [";", ")", " && ", "\n"].iter().filter_map(|end| text.find(end)).min();
        quote.into_iter().chain(clause).min().unwrap_or(text.len())
    };
    let parts = code.split("kubectl ").skip(1).map(|text| &text[..end(text)]);
    parts.filter(|part| part.split_once(' ').is_some_and(|(verb, _)| VERBS.contains(&verb))).collect()
}

/// Whether a command names the namespace: itself, or by a name that has it.
fn is_whole(command: &str, code: &str) -> bool {
    let object = command.split(' ').nth(2).and_then(|object| object.strip_prefix('{'));
    let name = object.and_then(|object| object.split('}').next());
    NAMESPACES.iter().any(|namespace| command.contains(namespace)) || name.is_some_and(|name| has_namespace(name, code))
}

/// Whether a placeholder is for a name with its namespace: it is one of the method's name, or a variable that a statement
/// gives a value of the method. The values of placeholders without a name are not followed.
fn has_namespace(placeholder: &str, code: &str) -> bool {
    let gives = |statement: &str| {
        let statement = statement.split(';').next().unwrap_or_default();
        statement.split_once(" = ").is_some_and(|(variables, value)| {
            let mut variables = variables.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
            value.contains(WHOLE) && variables.any(|variable| variable == placeholder)
        })
    };
    match placeholder {
        "" => code.contains(WHOLE),
        WHOLE => true,
        _ => code.split("let ").skip(1).any(gives),
    }
}

/// The commands of a folder without a namespace, each with its file, and the number of all.
fn incomplete(folder: &Path, count: &mut usize) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of the source") {
        let path = entry.expect("an entry of the folder").path();
        let name = path.file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned();
        // The reference page has commands for its readers to complete.
        if ["tests", "reference"].contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            found.extend(incomplete(&path, count));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let code = code(&fs::read_to_string(&path).expect("a source file"));
            let commands = commands(&code);
            *count += commands.len();
            let without = commands.into_iter().filter(|command| !is_whole(command, &code));
            found.extend(without.map(|command| format!("{}: kubectl {command}", path.display())));
        }
    }
    found
}

#[test]
fn every_command_in_a_message_has_its_namespace() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    let found = [root.join("src"), root.join("gateway/src")].map(|folder| incomplete(&folder, &mut count)).concat();
    assert!(count > 50, "{count} commands are found");
    assert!(found.is_empty(), "commands without a namespace:\n{}", found.join("\n"));
}

#[test]
fn a_command_without_a_namespace_is_found() {
    let text = "// kubectl logs POD\nlet message = format!(\"see kubectl logs \\\n    {pod} -c database; then \
                kubectl servicedb psql {name} --superuser\");\n\"put kubectl on the PATH\";\n\
                \"kubectl describe job {job} -n {namespace}\";\n\
                #[cfg(test)]\nmod tests {\n    \"kubectl delete pod\";\n}\n";
    let code = code(text);
    let commands = commands(&code);
    assert_eq!(
        commands,
        ["logs {pod} -c database", "servicedb psql {name} --superuser", "describe job {job} -n {namespace}"]
    );
    let whole = |code: &str| commands.iter().map(|command| is_whole(command, code)).collect::<Vec<_>>();
    assert_eq!(whole(&code), [false, false, true]);
    assert_eq!(whole("let name = names.in_commands();"), [false, true, true]);
    assert_eq!(whole("let (name, major) = (names.in_commands(), 17);"), [false, true, true]);
    assert_eq!(whole("let name = &names.name; let other = names.in_commands();"), [false, false, true]);
}
