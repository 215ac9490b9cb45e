//! The configuration as an operator meets it: files, variables and flags in, settings or refusals out.

mod documents;

use std::path::PathBuf;
use std::time::Duration;

use super::*;

/// As short as a secret may be.
const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn from_toml(text: &str) -> Config {
    Config::from_toml("r.toml", text).unwrap().config
}

fn refusal(text: &str) -> String {
    Config::from_toml("r.toml", text).unwrap_err().to_string()
}

fn sources(file: Option<PathBuf>, variables: &[(&str, &str)], flags: Vec<Flag>) -> Sources {
    let variables = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
    Sources { file, variables, flags }
}

fn from_env(variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    sources(None, variables, Vec::new()).load()
}

#[test]
fn nothing_given_is_open_on_loopback() {
    let Loaded { config, warnings } = Sources::default().load().unwrap();
    assert_eq!(config.mode(), Mode::Open);
    assert_eq!(config.listen.to_string(), "127.0.0.1:8000");
    assert_eq!(config.database.url, DatabaseUrl::Sqlite("roomcast.db".into()));
    assert_eq!(config.database.commit_lanes, 1);
    assert!(config.workers >= 1 && config.client.connections_max.is_none());
    let direct = config.namespaces.get("direct").unwrap();
    assert!(direct.persist && !direct.auto_create && direct.subscribe == Audience::Members);
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(Config::default().to_toml(), config.to_toml());
}

#[test]
fn documented_defaults_are_the_defaults() {
    for key in keys().filter(|key| !key.section.contains("NAME")) {
        let text = match key.section {
            "" => format!("{} = {}", key.name, key.default),
            section => format!("[{section}]\n{} = {}", key.name, key.default),
        };
        assert_eq!(from_toml(&text).to_toml(), Config::default().to_toml(), "{text}");
    }
}

#[test]
fn the_example_file_holds_every_key_with_its_default() {
    let example = include_str!("../../roomcast.example.toml");
    assert_eq!(from_toml(example).to_toml(), Config::default().to_toml(), "as it is, it sets nothing");
    // A key is commented out without a space, a sentence with one.
    let uncommented: String = example
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if !key.starts_with(' ') => format!("{key}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let (own, named) = uncommented.split_once("[namespace.").unwrap();
    assert_eq!(from_toml(own).to_toml(), Config::default().to_toml());
    for key in keys() {
        let section = if key.section.is_empty() { String::new() } else { format!("\n[{}]\n", key.section) };
        let section = own.find(&section).map(|at| &own[at + section.len()..]);
        if !key.section.contains("NAME") {
            let body = section.unwrap().split("\n[").next().unwrap();
            let line = format!("{} = {}", key.name, key.default);
            assert!(body.lines().any(|given| given == line), "{line} is missing in [{}]", key.section);
        }
    }
    assert!(from_toml(&format!("[namespace.{named}")).namespaces.named.len() > 1);
}

#[test]
fn later_sources_win() {
    let file = std::env::temp_dir().join(format!("roomcast-load-{}.toml", std::process::id()));
    std::fs::write(&file, "workers = 3\nlisten = '127.0.0.1:1'\n[rooms]\nidle_timeout = '1m'").unwrap();
    let flag = Flag { name: "--listen", section: "", key: "listen", value: "127.0.0.1:3".to_owned() };
    let variables = [("ROOMCAST_LISTEN", "127.0.0.1:2"), ("ROOMCAST_WORKERS", "4"), ("PATH", "/bin")];
    let loaded = sources(Some(file.clone()), &variables, vec![flag]).load();
    std::fs::remove_file(&file).unwrap();
    let config = loaded.unwrap().config;
    assert_eq!(config.listen.to_string(), "127.0.0.1:3");
    assert_eq!(config.workers, 4);
    assert_eq!(config.rooms.idle_timeout, Duration::from_secs(60));
}

#[test]
fn variables_set_everything() {
    let config = from_env(&[
        ("ROOMCAST_DATABASE_URL", "postgres://ann:pw@db/chat"),
        ("ROOMCAST_DATABASE_DURABILITY", "normal"),
        ("ROOMCAST_CLIENT_TOKEN_HMAC_SECRET", "0123456789abcdef"),
        ("ROOMCAST_CLIENT_ALLOWED_ORIGINS", "https://a.example, https://B.example"),
        ("ROOMCAST_NAMESPACE_TYPING_PERSIST", "false"),
        ("ROOMCAST_WORKERS", ""),
    ])
    .unwrap()
    .config;
    assert_eq!(config.database.commit_lanes, 4);
    assert_eq!(config.database.durability, Durability::Normal);
    assert_eq!(config.mode(), Mode::Secured);
    assert_eq!(config.client.allowed_origins, ["https://a.example", "https://b.example"]);
    assert!(!config.namespaces.get("typing").unwrap().persist);
    assert!(config.api.key.is_none());
}

#[test]
fn named_namespaces_start_from_the_built_in_defaults() {
    let config =
        from_toml("[default_namespace]\npersist = false\n[namespace.smallhistory]\nhistory_size = 2");
    assert!(!config.namespaces.default.persist);
    let named = config.namespaces.get("smallhistory").unwrap();
    assert!(named.persist && named.history_size == 2 && named.history_ttl.is_none());
    assert!(from_toml("[namespace.empty]").namespaces.get("empty").is_some());
}

#[test]
fn the_shown_configuration_reads_back_unchanged() {
    let config = from_toml(
        "[database]\nurl = 'postgres:///chat'\n[client]\ninsecure = true\nallowed_origins = ['*']\n\
         [rooms]\nidle_timeout = '1m 30s'\n[namespace.a-b]\npersist = false\n[namespace.c]\nhistory_ttl = '100years'",
    );
    assert_eq!(from_toml(&config.to_toml()).to_toml(), config.to_toml());
}

#[test]
fn refusals_name_line_key_and_remedy() {
    for (text, expected) in [
        ("\nlisten = 8000", "r.toml:2: listen: expected an IP address and a port such as"),
        (
            "[client]\nping_intervall = '1s'",
            "r.toml:2: client.ping_intervall: unknown key; did you mean client.ping_interval?",
        ),
        ("insecure = true", "r.toml:1: insecure: unknown key; did you mean client.insecure?"),
        ("[clients]\nx = 1", "r.toml:1: clients: unknown section; did you mean [client]?"),
        ("client = 1", "r.toml:1: client: expected a section; write [client]"),
        ("[listen]", "r.toml:1: listen: expected an IP address and a port"),
        ("[namespace]\npersist = true", "write [namespace.NAME] and persist below"),
        ("[namespace.chat]\npersits = true", "did you mean namespace.chat.persist?"),
        (
            "[namespace.Chat]",
            "r.toml:1: namespace.Chat: the name of a namespace is 1 to 64 of the characters a-z 0-9 _ -",
        ),
        ("[namespace.\"\"]", "the name of a namespace is"),
        ("[api]\nzzzzzz = 1", "unknown key; known keys here: key"),
        ("workers = 1\nworkers = 2", "r.toml:2: this is not TOML: duplicate key"),
        ("workers = 5000", "r.toml:1: workers: must be between 0 and 1024, got 5000"),
        ("[client]\nping_interval = 25", "expected a duration in quotes such as \"25s\""),
        ("[client]\nping_interval = '1ms'", "must be between 10ms and 30days, got 1ms"),
        (
            "[client]\npong_timeout = '25s'",
            "r.toml:2: client.pong_timeout: client.pong_timeout (25s) must be shorter",
        ),
        (
            "[client]\nping_interval = '5s'",
            "r.toml:2: client.ping_interval: client.pong_timeout (8s) must be shorter",
        ),
        (
            "[namespace.big]\nmessage_bytes_max = '1000KiB'",
            "r.toml:2: namespace.big.message_bytes_max: client.message_bytes_max (524288) must be",
        ),
        ("[client]\nallowed_origins = ['https://a.example/']", "has a path; an origin is like"),
        ("[client]\nallowed_origins = ['a.example']", "has no scheme"),
        ("[rooms]\ninline_max_listeners = 4000", "must be less than rooms.parallel_min_listeners (256)"),
        ("[database]\ncommit_lanes = 4", "r.toml:2: database.commit_lanes: SQLite has one writer"),
        ("[log]\nfilter = 'roomcast=loud'", "expected a filter such as"),
        (
            "[default_namespace]\npersist = false\nhistory_size = 5",
            "r.toml:3: default_namespace.history_size: contradicts persist = false",
        ),
        ("[namespace.x]\npersist = false\nhistory_ttl = '1h'", "contradicts persist = false"),
        ("[namespace.x]\nsubscribe = 'subscribers'", "would let nobody in"),
        ("[namespace.direct]\npersist = false", "are always stored: only true is possible"),
        (
            "[namespace.direct]\nsubscribe = 'everyone'",
            "only \"members\" or \"nobody\" is possible, got \"everyone\"",
        ),
        ("[namespace.direct]\nauto_create = true", "only false is possible"),
    ] {
        let refusal = refusal(text);
        assert!(refusal.contains(expected), "{text}\n gives {refusal}");
        assert_eq!(refusal.lines().count(), 1, "{refusal}");
    }
}

#[test]
fn a_frame_must_hold_the_largest_message_of_every_namespace() {
    let refusal = refusal("[client]\nmessage_bytes_max = '67KiB'");
    for namespace in ["default_namespace", "namespace.direct"] {
        let expected = format!("at least 4096 more than {namespace}.message_bytes_max (65536)");
        assert!(refusal.contains(&expected), "{refusal}");
    }
    from_toml("[client]\nmessage_bytes_max = '68KiB'");
}

#[test]
fn all_problems_are_told_at_once() {
    let refusal = refusal("workers = 5000\nfoo = 1\n[client]\ninsecure = 'no'");
    assert_eq!(refusal.lines().count(), 3, "{refusal}");
}

#[test]
fn direct_rooms_may_be_tuned() {
    let config = from_toml("[namespace.direct]\nhistory_ttl = '1h'\npublish = 'nobody'");
    let direct = config.namespaces.get("direct").unwrap();
    assert_eq!(direct.history_ttl, Some(Duration::from_secs(3600)));
    assert_eq!((direct.subscribe, direct.publish), (Audience::Members, Audience::Nobody));
}

#[test]
fn without_a_secret_only_loopback_is_served() {
    for listen in ["0.0.0.0:8000", "[::]:8000", "192.168.1.5:80"] {
        let text = format!("listen = '{listen}'");
        let refusal = refusal(&text);
        for remedy in ["client.token_hmac_secret", "client.insecure = true", "127.0.0.1"] {
            assert!(refusal.contains(remedy), "{refusal}");
        }
        let secured = format!("{text}\n[client]\ntoken_hmac_secret = '{SECRET}'");
        assert_eq!(from_toml(&secured).mode(), Mode::Secured);
        let insecure = Config::from_toml("", &format!("{text}\n[client]\ninsecure = true")).unwrap();
        assert_eq!(insecure.config.mode(), Mode::Insecure);
        assert!(
            insecure.warnings[0]
                .contains("can be reached from other machines: anyone there can take the name")
        );
    }
    for listen in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "localhost:1"] {
        assert_eq!(from_toml(&format!("listen = '{listen}'")).mode(), Mode::Open);
    }
}

#[test]
fn proxies_are_named_before_they_are_believed() {
    let config = from_env(&[("ROOMCAST_CLIENT_TRUSTED_PROXIES", "loopback, 10.0.0.0/8 2001:db8::1")]);
    let proxies = config.unwrap().config.client.trusted_proxies;
    assert!(["127.0.0.1", "10.1.1.1", "2001:db8::1"].iter().all(|ip| proxies.contains(ip.parse().unwrap())));
    let refused = refusal("[client]\ntrusted_proxies = ['10.1.2.3/8', 'proxy']");
    assert!(refused.contains(r#""10.1.2.3/8" has bits behind its prefix: write 10.0.0.0/8"#), "{refused}");
    assert!(refused.contains(r#""proxy" is no IP address; the list is like ["loopback""#), "{refused}");
    let refused = refusal("client.insecure = true\nclient.proxy_protocol = true");
    assert!(refused.contains("needs client.trusted_proxies"), "{refused}");
    let config = from_toml(
        "[client]\ninsecure = true\nproxy_protocol = true\ntrusted_proxies = ['private', '192.0.2.0/24']",
    );
    assert!(config.to_toml().contains(r#"trusted_proxies = ["private", "192.0.2.0/24"]"#));
    let unlimited = from_toml("[client]\naddress_sockets_max = 0\naddress_sockets_per_second_max = 0");
    assert_eq!(unlimited.client.address_sockets_max, None);
    assert_eq!(unlimited.client.address_sockets_per_second_max, None);
}

#[test]
fn secrets_appear_nowhere() {
    let text = "[client]\ntoken_hmac_secret = 'hunter2'\n[api]\nkey = 'hunter2'\n\
                [database]\nurl = 'postgres://ann:hunter2@db/chat'";
    let Loaded { config, warnings } = Config::from_toml("r.toml", text).unwrap();
    assert_eq!(warnings.len(), 2, "both are short: {warnings:?}");
    for shown in [format!("{config:?}"), config.to_toml(), format!("{warnings:?}")] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    for wrong in [
        "token_hmac_secret = \"hunter2",
        "client.token_hmac_secret = ['hunter2']",
        "[database]\nurl = 'mysql://ann:hunter2@db'",
    ] {
        assert!(!refusal(wrong).contains("hunter2"), "{}", refusal(wrong));
    }
}

#[test]
fn a_short_secret_is_for_loopback() {
    for key in ["client.token_hmac_secret", "api.key"] {
        for secret in ["abc", &" ".repeat(40), &SECRET[1..]] {
            let text = format!("{key} = '{secret}'\n");
            let loaded = Config::from_toml("r.toml", &text).unwrap();
            assert!(loaded.warnings[0].starts_with(&format!("{key} is shorter than 32 bytes")), "{loaded:?}");
            let refusal = refusal(&format!("listen = '0.0.0.0:80'\nclient.insecure = true\n{text}"));
            assert!(refusal.starts_with(&format!("r.toml:3: {key}: is shorter than 32 bytes")), "{refusal}");
        }
        let enough = format!("listen = '0.0.0.0:80'\nclient.insecure = true\n{key} = '{SECRET}'");
        assert_eq!(Config::from_toml("r.toml", &enough).unwrap().warnings.len(), 1, "that of insecure");
    }
}

#[test]
fn an_empty_variable_is_no_secret() {
    for name in ["CLIENT_TOKEN_HMAC_SECRET", "API_KEY", "DATABASE_URL"] {
        for name in [format!("ROOMCAST_{name}"), format!("ROOMCAST_{name}_FILE")] {
            let refusal = from_env(&[(&name, "")]).unwrap_err().to_string();
            assert!(refusal.starts_with(&format!("{name}: the variable is set, but empty")), "{refusal}");
        }
    }
}

#[test]
fn secrets_may_stand_in_files() {
    let folder = std::env::temp_dir().join(format!("roomcast-secrets-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (secret, key, url) = (
        file("secret", &format!("{SECRET}\n")),
        file("key", "hunter2\r\n"),
        file("url", "postgres://a:hunter2@h/d"),
    );
    let by_variables = from_env(&[
        ("ROOMCAST_CLIENT_TOKEN_HMAC_SECRET_FILE", &secret),
        ("ROOMCAST_API_KEY_FILE", &key),
        ("ROOMCAST_DATABASE_URL_FILE", &url),
    ]);
    let by_file = Config::from_toml(
        "r.toml",
        &format!(
            "client.token_hmac_secret_file = '{secret}'\napi.key_file = '{key}'\ndatabase.url_file = '{url}'"
        ),
    );
    for loaded in [by_variables, by_file] {
        let config = loaded.unwrap().config;
        assert_eq!(config.client.token_hmac_secret, Some(Secret::new(SECRET)));
        assert_eq!(config.api.key, Some(Secret::new("hunter2")));
        assert_eq!(config.database.url, DatabaseUrl::Postgres("postgres://a:hunter2@h/d".to_owned()));
    }

    let (empty, wrong, large) =
        (file("empty", "\n"), file("wrong", "mysql://hunter2"), file("large", &"x".repeat(65 * 1024)));
    for (key, path, expected) in [
        ("client.token_hmac_secret_file", &empty, "is empty"),
        ("client.token_hmac_secret_file", &format!("{secret}/none"), "cannot be read: "),
        ("api.key_file", &large, "is larger than 65536 bytes"),
        ("database.url_file", &wrong, "expected \"sqlite:FILE\""),
    ] {
        let refusal = refusal(&format!("{key} = '{path}'"));
        assert!(
            refusal.starts_with(&format!("r.toml:1: {key}: ")) && refusal.contains(expected),
            "{refusal}"
        );
        assert!(!refusal.contains("hunter2"), "{refusal}");
    }
    let both = [("ROOMCAST_API_KEY", SECRET), ("ROOMCAST_API_KEY_FILE", key.as_str())];
    let refused = from_env(&both).unwrap_err().to_string();
    assert_eq!(refused, "ROOMCAST_API_KEY_FILE: ROOMCAST_API_KEY is set as well; set one of them");
    let refused = refusal(&format!("api.key_file = '{key}'\napi.key = '{SECRET}'"));
    assert_eq!(refused, "r.toml:1: api.key_file: key is set as well; set one of them");
    let refused = refusal("listen_file = 'x'");
    assert!(refused.contains("unknown key"), "only secrets: {refused}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn an_open_server_lets_no_page_in_by_a_pattern() {
    for pattern in ["*", "null", "http://*", "https://*:3000", "*://*", "https://*.*", "chrome-extension://*"]
    {
        let text = format!("[client]\nallowed_origins = ['http://dev.test:3000', '{pattern}']");
        let refusal = refusal(&text);
        assert!(refusal.starts_with("r.toml:2: client.allowed_origins: "), "{refusal}");
        assert!(refusal.contains(&format!("[{pattern:?}] would let any web page")), "{refusal}");
        from_toml(&format!("{text}\ntoken_hmac_secret = '{SECRET}'"));
        from_toml(&format!("{text}\ninsecure = true"));
    }
    from_toml(
        "[client]\nallowed_origins = ['http://dev.test:3000', 'https://*.example.com', 'http://[::1]:3000']",
    );
    let proxied = "[client]\nproxy_protocol = true\ntrusted_proxies = ['loopback']";
    assert!(refusal(proxied).contains("a proxy would let anyone"), "{}", refusal(proxied));
}

#[test]
fn a_configuration_made_in_code_obeys_the_same_rules() {
    assert_eq!(Config::default().check().unwrap().config.to_toml(), Config::default().to_toml());
    let everything = from_toml(&format!(
        "listen = '0.0.0.0:80'\n[client]\ntoken_hmac_secret = '{SECRET}'\nproxy_protocol = true\n\
         trusted_proxies = ['private']\nallowed_origins = ['*']\n[database]\nurl = 'postgres://a:b@h/d'\n\
         [namespace.typing]\npersist = false\n[namespace.big]\nhistory_ttl = '100years'\n\
         [namespace.direct]\nhistory_size = 5"
    ));
    let again = everything.check().unwrap().config;
    assert_eq!(again.to_toml(), everything.to_toml());
    assert_eq!(again.client.token_hmac_secret, everything.client.token_hmac_secret);
    assert_eq!(again.database.url, everything.database.url);
    assert!(Config { workers: 0, ..Config::default() }.check().unwrap().config.workers > 0);

    type Change = fn(&mut Config);
    let changes: [(Change, &str); 14] = [
        (|config| config.listen = "0.0.0.0:80".parse().unwrap(), "listen: 0.0.0.0:80 can be reached"),
        (|config| config.client.ping_interval = Duration::ZERO, "client.ping_interval: must be between 10ms"),
        (|config| config.client.pong_timeout = Duration::MAX, "client.pong_timeout: "),
        (|config| config.client.connections_max = Some(0), "client.connections_max: must be between 1"),
        (
            |config| config.client.token_hmac_secret = Some(Secret::new("")),
            "client.token_hmac_secret: is empty",
        ),
        (
            |config| config.client.allowed_origins = vec!["*".to_owned()],
            "client.allowed_origins: [\"*\"] would",
        ),
        (|config| config.client.allowed_origins = vec!["a".to_owned()], "\"a\" has no scheme"),
        (|config| config.client.message_bytes_max = 5000, "message_bytes_max (65536)"),
        (|config| config.workers = 5000, "workers: must be between 0 and 1024, got 5000"),
        (|config| config.readers_max = 0, "readers_max: must be between"),
        (|config| config.rooms.inline_max_listeners = 500, "must be less than rooms.parallel_min_listeners"),
        (|config| config.database.commit_lanes = 4, "database.commit_lanes: SQLite has one writer"),
        (|config| config.database.url = DatabaseUrl::Sqlite(":memory:".into()), "database.url: an in-memory"),
        (|config| config.log.filter = "roomcast=loud".to_owned(), "log.filter: expected a filter"),
    ];
    for (change, expected) in changes {
        let mut config = Config::default();
        change(&mut config);
        let refusal = config.check().unwrap_err().to_string();
        assert!(refusal.contains(expected), "{expected}: {refusal}");
    }
    let mut config = Config::default();
    let typing =
        Namespace { persist: false, history_size: 2, ..Namespace::clone(&config.namespaces.default) };
    config.namespaces.named.insert("typing".to_owned(), typing.into());
    config.namespaces.named.insert("Chat".to_owned(), config.namespaces.default.clone());
    let open = Namespace { auto_create: true, ..Namespace::clone(config.namespaces.get("direct").unwrap()) };
    config.namespaces.named.insert("direct".to_owned(), open.into());
    let refusal = config.check().unwrap_err().to_string();
    for expected in [
        "namespace.typing.history_size: contradicts persist = false",
        "namespace.Chat: the name of a namespace is",
        "namespace.direct.auto_create: the rooms of two contacts are created with the contact",
    ] {
        assert!(refusal.contains(expected), "{expected}: {refusal}");
    }
}

#[test]
fn unknown_variables_and_bad_values_are_refused_by_name() {
    let refusal = from_env(&[("ROOMCAST_LISTN", "x"), ("ROOMCAST_WORKERS", "many")]).unwrap_err().to_string();
    assert!(refusal.contains("ROOMCAST_LISTN: unknown variable; did you mean ROOMCAST_LISTEN?"), "{refusal}");
    assert!(refusal.contains("ROOMCAST_WORKERS: expected a whole number"), "{refusal}");
    assert!(from_env(&[("ROOMCAST_PORT_8000_TCP", "tcp://10.0.0.1:8000"), ("ROOMCAST_CONFIG", "x")]).is_ok());
}

#[test]
fn a_missing_file_is_named() {
    let missing = sources(Some("/nowhere/r.toml".into()), &[], Vec::new()).load().unwrap_err();
    assert!(missing.to_string().starts_with("/nowhere/r.toml: the configuration file cannot be read"));
}
