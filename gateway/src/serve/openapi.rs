//! `GET /openapi.json`: OpenAPI 3.1 of the schema as it is.

use serde_json::{Map, Value, json};

use crate::catalog::{Catalog, Column, Function, Table};

/// The bodies that are the same for each database.
const BODIES: &str = include_str!("bodies.json");

/// The document.
pub fn document(catalog: &Catalog) -> Value {
    let mut paths = Map::new();
    let mut schemas: Map<String, Value> = serde_json::from_str(BODIES).expect("the file is JSON");
    schemas.insert("Problem".into(), problem());
    for table in catalog.tables.values() {
        let name = exposed_name(catalog, table);
        schemas.insert(name.clone(), row(table, false));
        schemas.insert(format!("{name}.create"), row(table, true));
        paths.insert(format!("/{name}"), collection(table, &name));
        if !table.primary_key.is_empty() {
            paths.insert(format!("/{name}/{{id}}"), item(table, &name));
        }
        paths.insert(format!("/{name}/count"), count(&name));
        paths.insert(format!("/{name}/query"), posted(&name, "Query by a JSON tree", "query", &array_of(&name)));
        paths.insert(
            format!("/{name}/aggregate"),
            posted(&name, "Aggregate", "aggregate", &json!({"type": "array", "items": {"type": "object"}})),
        );
    }
    for functions in catalog.functions.values() {
        if let Some(function) = functions.first().filter(|function| Some(&function.schema) == catalog.schemas.first()) {
            paths.insert(format!("/rpc/{}", function.name), call(function));
        }
    }
    let object = json!({"type": "object"});
    let static_paths: [(&str, &str, &str, Value); 11] = [
        ("/", "get", "This document", object.clone()),
        ("/openapi.json", "get", "This document", object.clone()),
        ("/transaction", "post", "Several operations, all or nothing; or begin, commit, rollback", object.clone()),
        (
            "/search",
            "post",
            "Full-text search across collections",
            json!({"type": "array", "items": {"type": "object"}}),
        ),
        ("/schema/{collection}", "get", "The schema of a collection", object.clone()),
        ("/migrations", "get", "The migrations", json!({"type": "array", "items": {"type": "object"}})),
        ("/migrations/status", "get", "The state of the migrations", object.clone()),
        ("/stats", "get", "Statistics of the database", object.clone()),
        ("/health", "get", "Whether the database answers", object.clone()),
        ("/performance", "get", "Query execution statistics of the caller", object.clone()),
        ("/connections", "get", "Connections", object.clone()),
    ];
    for (path, method, summary, schema) in static_paths {
        let mut operation = operation(summary, &[], Some(&schema));
        if method == "post" {
            operation["requestBody"] = body(path.trim_start_matches('/'));
        }
        if path.contains('{') {
            operation["parameters"] =
                json!([{"name": "collection", "in": "path", "required": true, "schema": {"type": "string"}}]);
        }
        if path == "/transaction" {
            operation["responses"]["201"] =
                json!({"description": "Begun", "content": {"application/json": {"schema": object}}});
        }
        paths.insert(path.into(), json!({method: operation}));
    }
    for (path, methods) in &mut paths {
        let of_one_collection = |path: &str| !path.trim_start_matches('/').contains('/') && path != "/search";
        for (method, operation) in methods.as_object_mut().into_iter().flatten() {
            let writes = match method.as_str() {
                "post" => of_one_collection(path) || path.starts_with("/rpc/"),
                method => method != "get",
            };
            // What has no collection has no tag.
            let reads_rows = operation["tags"].as_array().is_some_and(|tags| !tags.is_empty()) || path == "/search";
            if writes {
                with_parameter(operation, "IdempotencyKey");
            } else if reads_rows && !path.starts_with("/rpc/") {
                with_parameter(operation, "PreferRead");
                with_parameter(operation, "ReadAfter");
            }
        }
    }
    let mut refused = operation("Refused: only a change of the resource changes the schema", &[], None);
    refused["responses"]["403"] = json!({"$ref": "#/components/responses/Problem"});
    paths["/migrations"]["post"] = refused;
    json!({
        "openapi": "3.1.0",
        "info": {"title": "servicedb data gateway", "version": "1", "description": "REST in PostgREST's dialect; HEAD wherever there is GET"},
        "servers": [{"url": "/api/db"}],
        "security": [{"serviceAccount": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": {
                "IdempotencyKey": {
                    "name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "minLength": 1, "maxLength": 255},
                    "description": "The request is carried out once for this key, within 24 hours; a repetition has the first answer, with Idempotent-Replayed",
                },
                "PageToken": {
                    "name": "page_token", "in": "query", "schema": {"type": "string"},
                    "description": "Next-Page-Token of the page before; empty for the first page",
                },
                "PreferRead": {
                    "name": "Prefer", "in": "header", "schema": {"type": "string"},
                    "description": "read=replica: a replica may answer; count=",
                },
                "ReadAfter": {
                    "name": "Read-After", "in": "header", "schema": {"type": "string", "pattern": "^[0-9A-Fa-f]{1,8}:[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}$"},
                    "description": "With read=replica: the position that the replica must have reached, from the answer to a write with Prefer: read-after",
                },
            },
            "headers": {"NextPageToken": {
                "schema": {"type": "string"}, "description": "With page_token: the token of the next page; absent on the last one",
            }},
            "securitySchemes": {"serviceAccount": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            "responses": {"Problem": {"description": "A problem (RFC 9457)", "content": {"application/problem+json": {"schema": reference("Problem")}}}},
        },
    })
}

/// Adds one of the parameters that several operations have.
fn with_parameter(operation: &mut Value, name: &str) {
    let parameter = json!({"$ref": format!("#/components/parameters/{name}")});
    match operation["parameters"].as_array_mut() {
        Some(parameters) => parameters.push(parameter),
        None => operation["parameters"] = json!([parameter]),
    }
}

/// The name in paths: with the schema, unless that is the default.
fn exposed_name(catalog: &Catalog, table: &Table) -> String {
    if catalog.schemas.first() == Some(&table.schema) {
        table.name.clone()
    } else {
        format!("{}.{}", table.schema, table.name)
    }
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn array_of(name: &str) -> Value {
    json!({"type": "array", "items": reference(name)})
}

fn problem() -> Value {
    let text = json!({"type": ["string", "null"]});
    json!({
        "type": "object",
        "required": ["type", "title", "status", "code", "message"],
        "properties": {
            "type": {"type": "string"}, "title": {"type": "string"}, "status": {"type": "integer"}, "detail": {"type": "string"},
            "code": {"type": "string"}, "message": {"type": "string"}, "details": text, "hint": text,
            "errors": {"type": "array", "items": {"type": "object", "properties": {"pointer": {"type": "string"}, "message": {"type": "string"}}}},
        },
    })
}

fn row(table: &Table, create: bool) -> Value {
    let columns = table.columns.iter().filter(|column| !create || !column.is_read_only());
    let properties: Map<String, Value> = columns.clone().map(|column| (column.name.clone(), value(column))).collect();
    let mut found = json!({"type": "object", "properties": properties});
    if create {
        let required: Vec<&str> = columns
            .filter(|column| column.required && !column.has_default())
            .map(|column| column.name.as_str())
            .collect();
        found["required"] = json!(required);
        found["additionalProperties"] = json!(false);
    }
    if let Some(comment) = &table.comment {
        found["description"] = json!(comment);
    }
    found
}

fn value(column: &Column) -> Value {
    let kind = |name: &str| if column.required { json!(name) } else { json!([name, "null"]) };
    let mut found = match column.base.as_str() {
        "int2" => json!({"type": kind("integer"), "minimum": i16::MIN, "maximum": i16::MAX}),
        "int4" => json!({"type": kind("integer"), "format": "int32", "minimum": i32::MIN, "maximum": i32::MAX}),
        "int8" => json!({"type": kind("integer"), "format": "int64"}),
        "float4" | "float8" | "numeric" => json!({"type": kind("number")}),
        "bool" => json!({"type": kind("boolean")}),
        "json" | "jsonb" => json!({}),
        "uuid" => json!({"type": kind("string"), "format": "uuid"}),
        "date" => json!({"type": kind("string"), "format": "date"}),
        "timestamptz" => json!({"type": kind("string"), "format": "date-time"}),
        _ if column.category == "A" => json!({"type": kind("array")}),
        _ if column.category == "C" => json!({}),
        _ => json!({"type": kind("string")}),
    };
    if let Some(values) = &column.values {
        let mut values: Vec<Value> = values.iter().map(|value| json!(value)).collect();
        if !column.required {
            values.push(Value::Null);
        }
        found["enum"] = json!(values);
    }
    if let Some(length) = column.length {
        found["maxLength"] = json!(length);
    }
    if column.is_read_only() {
        found["readOnly"] = json!(true);
    }
    let description =
        format!("{}{}", column.sql_type, column.comment.as_ref().map_or(String::new(), |text| format!(": {text}")));
    found["description"] = json!(description);
    found
}

fn operation(summary: &str, tags: &[&str], answer: Option<&Value>) -> Value {
    let mut responses = Map::new();
    if let Some(schema) = answer {
        responses
            .insert("200".into(), json!({"description": "OK", "content": {"application/json": {"schema": schema}}}));
    }
    responses.insert("default".into(), json!({"$ref": "#/components/responses/Problem"}));
    json!({"summary": summary, "tags": tags, "responses": responses})
}

fn parameters(table: &Table) -> Value {
    let text = |name: &str, help: &str| json!({"name": name, "in": "query", "schema": {"type": "string"}, "description": help});
    let number = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "integer", "minimum": 0}});
    let mut found = vec![
        text("select", "Columns, and collections to embed: id,title,directors(name)"),
        text("order", "created_at.desc.nullslast,id"),
        number("limit"),
        number("offset"),
        text("and", "(a.gte.1,b.is.null)"),
        text("or", "(a.eq.1,b.eq.2)"),
    ];
    found.extend(table.columns.iter().map(|column| text(&column.name, "operator.value, as eq.1")));
    json!(found)
}

fn collection(table: &Table, name: &str) -> Value {
    let mut get = operation("Rows", &[name], Some(&array_of(name)));
    get["parameters"] = parameters(table);
    get["responses"]["206"] =
        json!({"description": "A part of the rows", "content": {"application/json": {"schema": array_of(name)}}});
    if !table.primary_key.is_empty() {
        paged(&mut get);
    }
    let mut found = json!({"get": get});
    let prefer = json!([{"name": "Prefer", "in": "header", "schema": {"type": "string"}, "description": "return=, resolution=, missing=, count="}]);
    let create = format!("{name}.create");
    if table.events & 8 != 0 {
        let mut post = operation("Create", &[name], None);
        post["responses"]["201"] = json!({"description": "Created"});
        post["parameters"] = prefer.clone();
        post["requestBody"] = json!({"required": true, "content": {"application/json": {"schema": {"oneOf": [reference(&create), array_of(&create)]}}}});
        found["post"] = post;
    }
    if table.events & 12 == 12 && !table.primary_key.is_empty() {
        found["put"] = put(table, name);
    }
    let write = |summary: &str| {
        let mut write = operation(summary, &[name], Some(&array_of(name)));
        write["parameters"] = parameters(table);
        write["responses"]["204"] = json!({"description": "Done"});
        write
    };
    if table.events & 4 != 0 {
        let mut patch = write("Change rows");
        patch["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": {"type": "object"}}}});
        found["patch"] = patch;
    }
    if table.events & 16 != 0 {
        found["delete"] = write("Remove rows");
    }
    found
}

/// `PUT` by filter.
fn put(table: &Table, name: &str) -> Value {
    let mut put = operation("Replace the row with this primary key, or create it", &[name], Some(&array_of(name)));
    let key = |column: &String| json!({"name": column, "in": "query", "required": true, "schema": {"type": "string", "pattern": "^eq\\."}});
    let header = |name: &str| json!({"name": name, "in": "header", "schema": {"type": "string"}});
    put["parameters"] = table.primary_key.iter().map(key).chain(["Prefer", "If-Match"].map(header)).collect();
    put["responses"]["201"] = json!({"description": "Created"});
    put["responses"]["204"] = json!({"description": "Done"});
    put["requestBody"] =
        json!({"required": true, "content": {"application/json": {"schema": reference(&format!("{name}.create"))}}});
    put
}

/// Adds pages to a read of rows.
fn paged(get: &mut Value) {
    with_parameter(get, "PageToken");
    for status in ["200", "206"] {
        get["responses"][status]["headers"] =
            json!({"Next-Page-Token": {"$ref": "#/components/headers/NextPageToken"}});
    }
}

fn item(table: &Table, name: &str) -> Value {
    let id = json!({"name": "id", "in": "path", "required": true, "schema": {"type": "string"}, "description": format!("{}", table.primary_key.join(","))});
    let mut get = operation("One document", &[name], Some(&reference(name)));
    get["parameters"] = json!([id]);
    get["responses"]["304"] = json!({"description": "Unchanged since If-None-Match"});
    let mut found = json!({"get": get});
    let if_match = json!({"name": "If-Match", "in": "header", "schema": {"type": "string"}});
    if table.events & 4 != 0 {
        let mut put = operation("Replace a document", &[name], Some(&reference(name)));
        put["parameters"] = json!([id, if_match]);
        put["responses"]["204"] = json!({"description": "Done"});
        put["requestBody"] = json!({"required": true, "content": {"application/json": {"schema": reference(&format!("{name}.create"))}}});
        found["put"] = put;
        let mut patch = operation("Change columns of a document", &[name], Some(&reference(name)));
        patch["parameters"] = json!([id, if_match]);
        patch["responses"]["204"] = json!({"description": "Done"});
        patch["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": {"type": "object"}}}});
        found["patch"] = patch;
    }
    if table.events & 16 != 0 {
        let mut delete = operation("Remove a document", &[name], Some(&reference(name)));
        delete["parameters"] = json!([id, if_match]);
        delete["responses"]["204"] = json!({"description": "Done"});
        found["delete"] = delete;
    }
    found
}

fn count(name: &str) -> Value {
    let answer = json!({"type": "object", "properties": {"count": {"type": "integer"}}});
    let mut found = posted(name, "Count by a JSON tree", "query", &answer);
    found["get"] = operation("Count", &[name], Some(&answer));
    found
}

fn posted(name: &str, summary: &str, asked: &str, answer: &Value) -> Value {
    let mut post = operation(summary, &[name], Some(answer));
    post["requestBody"] = body(asked);
    json!({"post": post})
}

/// One of the bodies that are the same for each database.
fn body(name: &str) -> Value {
    json!({"required": true, "content": {"application/json": {"schema": reference(&format!("body.{name}"))}}})
}

fn call(function: &Function) -> Value {
    let properties: Map<String, Value> = function
        .arguments
        .iter()
        .filter(|argument| !argument.name.is_empty())
        .map(|argument| (argument.name.clone(), json!({"description": argument.sql_type})))
        .collect();
    let required: Vec<&str> =
        function.arguments.iter().filter(|one| one.required).map(|one| one.name.as_str()).collect();
    let mut post = operation(function.comment.as_deref().unwrap_or("Call a function"), &["rpc"], Some(&json!({})));
    post["responses"]["204"] = json!({"description": "Nothing is returned"});
    let mut get = post.clone();
    get["summary"] = json!("Call it in a transaction that only reads");
    get["parameters"] = function
        .arguments
        .iter()
        .filter(|argument| !argument.name.is_empty())
        .map(|argument| json!({"name": argument.name, "in": "query", "required": argument.required, "schema": {"type": "string"}, "description": argument.sql_type}))
        .collect();
    post["requestBody"] = json!({"content": {"application/json": {"schema": {"type": "object", "properties": properties, "required": required}}}});
    json!({"get": get, "post": post})
}
