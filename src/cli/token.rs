//! `roomcast token`: a signed token for trying out, as a backend would make it.

use std::time::Duration;

use clap::Args;

use super::failure::Failure;
use super::output::print;
use super::sources::ConfigFile;
use crate::auth::issue::{IssueError, TokenRequest, issue};
use crate::clock;
use crate::config::Client;
use crate::ids::Channel;
use crate::limits::{INFO_BYTES_MAX, USER_ID_BYTES_MAX};

const EXAMPLES: &str = "\
Examples:
  roomcast token --user ann
        lets the user \"ann\" connect for an hour
  roomcast token --user ann --expires never --info '{\"name\":\"Ann\"}' --channels news,lobby
        valid forever, with a name that others see, and two rooms the server subscribes her to
  roomcast token --user ann --channel '$board'
        lets \"ann\" subscribe to the room \"$board\", which needs a subscription token

The secret is client.token_hmac_secret of the configuration, or the variable
ROOMCAST_CLIENT_TOKEN_HMAC_SECRET. Only the token is printed, so TOKEN=$(roomcast token …) works.";

/// Print a signed token.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TokenArgs {
    /// Source of the configuration.
    #[command(flatten)]
    pub file: ConfigFile,
    /// Id of the user
    #[arg(long, value_name = "ID")]
    pub user: String,
    /// Make a subscription token for this channel, not a connection token
    #[arg(long, value_name = "CH")]
    pub channel: Option<String>,
    /// Time until the token expires, such as 30m, 12h or never
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = lifetime)]
    pub expires: Lifetime,
    /// JSON that others see beside the user
    #[arg(long, value_name = "JSON")]
    pub info: Option<String>,
    /// Rooms the server subscribes the user to on connect
    #[arg(long, value_name = "CH,…", value_delimiter = ',', conflicts_with = "channel")]
    pub channels: Vec<String>,
}

/// Lifetime of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lifetime {
    /// For ever.
    Never,
    /// From now on.
    Within(Duration),
}

pub(super) fn run(args: &TokenArgs) -> Result<(), Failure> {
    let loaded = args.file.load(Vec::new())?;
    let token = token(args, &loaded.config.client, clock::unix_seconds())?;
    print(&format!("{token}\n"))
}

/// The token for those arguments.
fn token(args: &TokenArgs, client: &Client, now: i64) -> Result<String, Failure> {
    let secret = client.token_hmac_secret.as_ref().ok_or_else(|| {
        Failure::new(
            "there is no secret to sign with; set client.token_hmac_secret in the --config file, or \
             ROOMCAST_CLIENT_TOKEN_HMAC_SECRET, to the secret of the server",
        )
    })?;
    check(args)?;
    let channel = args.channel.as_deref().map(parse_channel).transpose()?;
    let channels = args.channels.iter().map(|name| parse_channel(name)).collect::<Result<Vec<_>, _>>()?;
    let request = TokenRequest {
        user: &args.user,
        channel: channel.as_ref(),
        channels: &channels,
        info: args.info.as_deref(),
        issued_at: Some(now),
        expires_at: match args.expires {
            Lifetime::Never => None,
            Lifetime::Within(time) => {
                Some(now.saturating_add(i64::try_from(time.as_secs()).unwrap_or(i64::MAX)))
            }
        },
        audience: client.token_audience.as_deref(),
        issuer: client.token_issuer.as_deref(),
    };
    issue(secret.expose(), &request).map_err(|error| match error {
        IssueError::Info(error) => {
            Failure::new(format!(r#"--info is not JSON such as '{{"name":"Ann"}}': {error}"#))
        }
        IssueError::Claims(_) => Failure::new(error.to_string()),
    })
}

/// Refuses what the server would refuse, here where the message reaches the person who typed it.
fn check(args: &TokenArgs) -> Result<(), Failure> {
    if args.user.len() > USER_ID_BYTES_MAX {
        return Err(Failure::new(format!("--user is longer than {USER_ID_BYTES_MAX} bytes")));
    }
    if args.info.as_ref().is_some_and(|info| info.len() > INFO_BYTES_MAX) {
        return Err(Failure::new(format!("--info is longer than {INFO_BYTES_MAX} bytes")));
    }
    Ok(())
}

fn parse_channel(name: &str) -> Result<Channel, Failure> {
    Channel::new(name).map_err(|error| Failure::new(format!("{name:?}: {error}")))
}

fn lifetime(text: &str) -> Result<Lifetime, String> {
    match text {
        "never" => Ok(Lifetime::Never),
        _ => match humantime::parse_duration(text) {
            Ok(time) if time >= Duration::from_secs(1) => Ok(Lifetime::Within(time)),
            _ => Err(
                r#"expected a duration of at least a second, such as "30m", "12h" or "90days", or "never""#
                    .to_owned(),
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use jsonwebtoken::{DecodingKey, Validation};

    use super::super::{Cli, Command};
    use super::*;
    use crate::config::{Config, Secret};

    const SECRET: &str = "a secret for this test";

    fn client() -> Client {
        let mut client = Config::default().client;
        client.token_hmac_secret = Some(Secret::new(SECRET));
        client
    }

    fn args(line: &[&str]) -> TokenArgs {
        match Cli::try_parse_from([&["roomcast", "token"], line].concat()).unwrap().command {
            Command::Token(args) => args,
            other => panic!("not token: {other:?}"),
        }
    }

    fn claims(line: &[&str], client: &Client) -> serde_json::Value {
        let token = token(&args(line), client, 4_000_000_000).unwrap();
        let mut validation = Validation::new(jsonwebtoken::Algorithm::HS256);
        validation.required_spec_claims.clear();
        validation.validate_aud = false;
        jsonwebtoken::decode(&token, &DecodingKey::from_secret(SECRET.as_bytes()), &validation)
            .unwrap()
            .claims
    }

    #[test]
    fn a_connection_token_holds_what_was_asked_for() {
        let line = ["--user=ann", "--expires=2m", r#"--info={"name":"Ann"}"#, "--channels=news,lobby"];
        assert_eq!(
            claims(&line, &client()),
            serde_json::json!({
                "sub": "ann", "iat": 4_000_000_000_i64, "exp": 4_000_000_120_i64,
                "info": {"name": "Ann"}, "channels": ["news", "lobby"],
            })
        );
    }

    #[test]
    fn a_subscription_token_names_its_channel_audience_and_issuer() {
        let mut client = client();
        client.token_audience = Some("chat".to_owned());
        client.token_issuer = Some("shop".to_owned());
        assert_eq!(
            claims(&["--user=ann", "--channel=$board", "--expires=never"], &client),
            serde_json::json!({
                "sub": "ann", "channel": "$board", "iat": 4_000_000_000_i64, "aud": "chat", "iss": "shop",
            })
        );
    }

    #[test]
    fn claims_the_server_would_refuse_make_no_token() {
        let failure = |line: &[&str]| token(&args(line), &client(), 0).unwrap_err().to_string();
        assert!(failure(&["--user=a", "--channel=a b"]).contains("printable ASCII"));
        assert!(failure(&["--user=a", "--info={name}"]).contains("is not JSON"));
        assert!(failure(&["--user", &"a".repeat(256)]).contains("255"));
        let none = token(&args(&["--user=a"]), &Config::default().client, 0).unwrap_err().to_string();
        assert!(none.contains("ROOMCAST_CLIENT_TOKEN_HMAC_SECRET"), "{none}");
        assert!(Cli::try_parse_from(["roomcast", "token", "--user=a", "--expires=soon"]).is_err());
    }
}
