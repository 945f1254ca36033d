use clap::CommandFactory;

use super::*;

fn parse(line: &str) -> Result<Command, clap::Error> {
    Cli::try_parse_from(std::iter::once("rcompose").chain(line.split_whitespace())).map(|cli| cli.command)
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn up_takes_docker_composes_flags() {
    let Command::Up(args) = parse("up -d --scale web=3 --scale db=1 -t 5 --no-deps -V -y web db").unwrap() else {
        panic!("another command");
    };
    let options = args.options().unwrap();
    assert!(options.detach && options.no_deps && options.renew_anonymous_volumes);
    assert_eq!(options.scale, [("web".to_owned(), 3), ("db".to_owned(), 1)]);
    assert_eq!(options.services, ["web", "db"]);
    assert_eq!(options.timeout, Some(std::time::Duration::from_secs(5)));
    for wrong in ["up --scale web", "up --force-recreate --no-recreate", "up -t x", "up --bogus"] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_port_is_asked_for_by_each_protocol() {
    assert!(parse("port --protocol SCTP web 80").is_ok());
    assert!(parse("port --protocol icmp web 80").is_err());
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let Command::Other(words) = parse("alpha viz").unwrap() else { panic!("another command") };
    assert_eq!(unknown(&words[0]).message, "`alpha` is not supported yet");
    assert_eq!(unknown("bogus").message, "unknown command `bogus`");
}

#[test]
fn everything_behind_the_service_belongs_to_the_command() {
    let Command::Exec(args) = parse("exec -it -e A=1 -u root -w / web ls -T --help -- -x").unwrap() else {
        panic!("another command");
    };
    let options = args.options().unwrap();
    assert_eq!(options.service, "web");
    assert_eq!(options.command, ["ls", "-T", "--help", "--", "-x"]);
    assert_eq!(options.environment, ["A=1"]);
    assert!(options.stdin);
    let Command::Exec(args) = parse("exec --no-TTY --interactive=false web true").unwrap() else {
        panic!("another command");
    };
    let options = args.options().unwrap();
    assert!(!options.terminal && !options.stdin);
    assert!(parse("exec web").is_err());
    let Command::Run(args) = parse("run --rm --no-deps web sh -c x").unwrap() else { panic!("another command") };
    let options = args.options().unwrap();
    assert!(options.remove && options.no_deps);
    assert_eq!(options.command, ["sh", "-c", "x"]);
    assert!(parse("run").is_err());
    assert!(parse("run -P -p 80:80 web").is_err());
}

#[test]
fn lists_have_formats_and_filters() {
    let Command::Ps(args) = parse("ps -a -q --services --filter status=exited --format json --orphans=false").unwrap()
    else {
        panic!("another command");
    };
    let options = args.options().unwrap();
    assert!(options.all && options.quiet && options.services_only && options.no_orphans);
    assert_eq!(options.status, ["exited"]);
    assert!(parse("ps --format {{.Name}}").is_ok());
    assert!(parse("ps --format {{.Name").is_err());
    assert!(parse("ls --format {{.Name}}").is_err());
    let Command::Ps(args) = parse("ps --filter x=y").unwrap() else { panic!("another command") };
    assert!(args.options().is_err());
}

#[test]
fn logs_take_tails_and_times() {
    let Command::Logs(args) = parse("logs -ft -n 10 --since 42m web").unwrap() else { panic!("another command") };
    let options = args.options().unwrap();
    assert!(options.follow && options.output.timestamps && options.since.is_some());
    assert_eq!(options.tail, Some(10));
    let Command::Logs(args) = parse("logs --tail=-1").unwrap() else { panic!("another command") };
    assert_eq!(args.options().unwrap().tail, None);
    assert!(parse("logs --since bogus").is_err());
}

#[test]
fn usage_errors_are_exit_code_one() {
    let one = format!("{:?}", ExitCode::from(1));
    assert_eq!(format!("{:?}", usage(&parse("up --bogus").unwrap_err())), one);
    assert_eq!(format!("{:?}", usage(&parse("--help").unwrap_err())), format!("{:?}", ExitCode::SUCCESS));
}
