//! What a configuration says, and what it is refused for.

mod sharing;

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Config {
    Config::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Everything that is wrong, a line each.
fn refused(text: &str) -> String {
    match Config::parse(text).and_then(|config| config.with(&Overrides::default())) {
        Ok(config) => panic!("taken: {config:?}"),
        Err(ConfigError::Invalid(problems)) => {
            let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
            lines.join("\n")
        }
        Err(error) => error.to_string(),
    }
}

fn remarks(text: &str) -> Vec<String> {
    let config = parse(text).with(&Overrides::default()).unwrap();
    config.remarks.iter().map(Remark::to_string).collect()
}

/// The whole file of the fact sheet `devices`, section 1.1, each field with another value than its default.
const ALL: &str = r#"
version: v1
flags:
  migStrategy: single
  failOnInitError: false
  mpsRoot: /run/mps
  nvidiaDriverRoot: /run/nvidia/driver
  nvidiaDevRoot: /dev-root
  gdrcopyEnabled: true
  gdsEnabled: true
  mofedEnabled: true
  useNodeFeatureAPI: true
  deviceDiscoveryStrategy: nvml
  plugin:
    passDeviceSpecs: true
    deviceListStrategy: [cdi-annotations, cdi-cri]
    deviceIDStrategy: index
    cdiAnnotationPrefix: example.com/
    nvidiaCTKPath: /opt/nvidia-ctk
    containerDriverRoot: /driver
    sharedDevicesAllocationPolicy: packed
  gfd:
    oneshot: true
    noTimestamp: true
    sleepInterval: 1m30s
    outputFile: /features.d/gfd
    machineTypeFile: /machine
resources:
  gpus: [{pattern: "*A100*", name: gpu-a100}]
  mig: [{pattern: 1g.5gb, name: nvidia.com/mig-small}]
sharing:
  timeSlicing:
    renameByDefault: true
    failRequestsGreaterThanOne: true
    resources:
      - {name: nvidia.com/gpu, rename: gpu-shared, devices: [0, "1:2", GPU-1a], replicas: 4}
      - {name: gpu-a100, devices: 2, replicas: 3}
imex: {channelIDs: [0], required: true}
"#;

#[test]
fn an_empty_text_is_the_defaults() {
    for text in [
        "",
        "# nothing\n",
        "{}",
        "version: v1",
        "version: ''",
        "null",
        "flags:\nsharing:\n",
    ] {
        assert_eq!(Config::parse(text), Ok(Config::default()), "{text}");
    }
}

#[test]
fn every_field_is_read() {
    let config = parse(ALL);
    let expected = Config {
        flags: Flags {
            mig_strategy: MigStrategy::Single,
            fail_on_init_error: false,
            mps_root: Some("/run/mps".into()),
            driver_root: Some("/run/nvidia/driver".into()),
            dev_root: Some("/dev-root".into()),
            gdrcopy: true,
            gds: true,
            mofed: true,
            use_node_feature_api: Some(true),
            device_discovery: DeviceDiscovery::Nvml,
            plugin: PluginFlags {
                pass_device_specs: true,
                device_list_strategies: vec![DeviceListStrategy::CdiAnnotations, DeviceListStrategy::CdiCri],
                device_id_strategy: DeviceIdStrategy::Index,
                cdi_annotation_prefix: "example.com/".to_owned(),
                cdi_hook_path: Some("/opt/nvidia-ctk".into()),
                container_driver_root: "/driver".into(),
                sharing_policy: SharingPolicy::Packed,
            },
            gfd: GfdFlags {
                oneshot: true,
                no_timestamp: true,
                sleep_interval: Interval::Every(Duration::from_secs(90)),
                output_file: Some("/features.d/gfd".into()),
                machine_type_file: "/machine".into(),
            },
        },
        names: NamingRules {
            gpus: vec![NameRule {
                pattern: Pattern::new("*A100*"),
                name: "nvidia.com/gpu-a100".to_owned(),
            }],
            mig: vec![NameRule {
                pattern: Pattern::new("1g.5gb"),
                name: "nvidia.com/mig-small".to_owned(),
            }],
        },
        sharing: SharingRules {
            time_slicing: Some(Shared {
                rename_by_default: true,
                fail_requests_greater_than_one: Some(true),
                resources: vec![
                    SharedResource {
                        name: "nvidia.com/gpu".to_owned(),
                        rename: Some("nvidia.com/gpu-shared".to_owned()),
                        devices: Devices::List(vec![
                            DeviceRef::Gpu(0),
                            DeviceRef::Mig(1, 2),
                            DeviceRef::Uuid("GPU-1a".to_owned()),
                        ]),
                        replicas: 4,
                    },
                    SharedResource {
                        name: "nvidia.com/gpu-a100".to_owned(),
                        rename: None,
                        devices: Devices::Count(2),
                        replicas: 3,
                    },
                ],
            }),
            mps: None,
        },
        imex: Imex {
            channels: vec![0],
            required: true,
        },
        remarks: Vec::new(),
    };
    assert_eq!(config, expected);
}

#[test]
fn json_is_read_as_yaml_is() {
    let json = r#"{
        "version": "v1",
        "flags": {"migStrategy": "mixed", "plugin": {"deviceListStrategy": "envvar"}, "gfd": {"sleepInterval": 60000000000}},
        "sharing": {"timeSlicing": {"resources": [{"name": "nvidia.com/gpu", "devices": "all", "replicas": 10}]}}
    }"#;
    let yaml = "flags:\n  migStrategy: mixed\n  plugin: {deviceListStrategy: envvar}\nsharing:\n  timeSlicing:\n    resources:\n      - {name: nvidia.com/gpu, replicas: 10}\n";
    assert_eq!(parse(json), parse(yaml));
}

#[test]
fn another_version_is_refused() {
    insta::assert_snapshot!(refused("version: v2"), @"line 1: `version` is `v2`, a version that isn't known: only `v1` is");
    assert!(refused("version: 1").contains("must be `v1`"));
}

#[test]
fn unknown_fields_are_ignored_and_named_with_their_lines() {
    let text = "flags:\n  plugin: {passDeviceSpecs: true, other: 1}\nfuture: {a: b}\nsharing:\n  timeslicing:\n    Resources: [{name: gpu, replicas: 2, x: 1}]\n";
    let config = parse(text);
    assert!(config.flags.plugin.pass_device_specs);
    assert_eq!(config.sharing().unwrap().1.resources[0].replicas, 2);
    insta::assert_snapshot!(remarks(text).join("\n"), @r"
    line 3: `future` is no field that is known; it is ignored
    line 2: `flags.plugin.other` is no field that is known; it is ignored
    line 5: `sharing.timeslicing` is taken for `timeSlicing`, as which it should be spelled
    line 6: `sharing.timeslicing.Resources` is taken for `resources`, as which it should be spelled
    line 6: `sharing.timeslicing.Resources[0].x` is no field that is known; it is ignored
    ");
}

#[test]
fn the_field_in_its_own_spelling_counts() {
    for text in [
        "flags: {migstrategy: single, migStrategy: mixed}",
        "flags: {migStrategy: mixed, migstrategy: single}",
    ] {
        assert_eq!(parse(text).flags.mig_strategy, MigStrategy::Mixed);
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once_with_path_and_line() {
    let text = "
flags:
  migStrategy: both
  failOnInitError: 3
  mpsRoot: run/mps
  plugin:
    deviceListStrategy: [cdi-cri, cdi]
    cdiAnnotationPrefix: cdi.k8s.io
  gfd: {sleepInterval: soon}
resources:
  gpus: [{pattern: '*'}, {name: x}, {pattern: '', name: small}]
sharing:
  timeSlicing:
    resources:
      - {name: nvidia.com/gpu, replicas: 1}
      - {name: example.com/gpu, replicas: 2}
      - {replicas: 1001}
      - {name: gpu, replicas: 2, devices: []}
  mps: {}
imex: {channelIDs: [1]}
";
    insta::assert_snapshot!(refused(text), @r"
    line 3: `flags.migStrategy` is `both`, which is none of none, single, mixed
    line 4: `flags.failOnInitError` must be true or false, not `3`
    line 5: `flags.mpsRoot` is `run/mps`, which is no absolute path
    line 7: `flags.plugin.deviceListStrategy[1]` is `cdi`, which is none of envvar, volume-mounts, cdi-annotations, cdi-cri
    line 8: `flags.plugin.cdiAnnotationPrefix` is `cdi.k8s.io`, which doesn't end with `/` as a prefix of annotations does
    line 9: `flags.gfd.sleepInterval` is `soon`, which is no time such as `60s`, `1m30s` or `infinite`
    line 11: `resources.gpus[0]` has no `name`
    line 11: `resources.gpus[1]` has no `pattern`
    line 11: `resources.gpus[2]` has an empty `pattern`, which nothing fits; `*` fits all
    line 15: `sharing.timeSlicing.resources[0].replicas` is 1: a device is shared by 2 or more; leave the entry out for one that isn't
    line 16: `sharing.timeSlicing.resources[1].name` is `example.com/gpu`, of the domain `example.com`: resources of GPUs are of `nvidia.com` alone
    line 17: `sharing.timeSlicing.resources[2].replicas` is 1001: at most 1000 are made of a device
    line 17: `sharing.timeSlicing.resources[2]` has no `name`
    line 18: `sharing.timeSlicing.resources[3].devices` is empty: give `all`, a count, or a list of devices
    line 19: `sharing.mps` shares nothing: it has no `resources`; name one, or leave it out
    line 20: `imex.channelIDs[0]` is 1: only channel 0 can be asked for
    ");
}

#[test]
fn what_can_t_be_read_is_refused_at_its_place() {
    for text in ["{", "flags: [", "a: 1\na: 2", "\t- x: y: z", "flags: *nowhere"] {
        assert!(
            matches!(Config::parse(text), Err(ConfigError::Syntax { .. })),
            "{text}: {:?}",
            Config::parse(text)
        );
    }
    for text in [
        "- a",
        "text",
        "12",
        "flags: 1",
        "sharing: all",
        "sharing: {mps: [a]}",
    ] {
        assert!(
            matches!(Config::parse(text), Err(ConfigError::Invalid(_))),
            "{text}"
        );
    }
}

#[test]
fn a_text_that_grows_without_end_is_refused() {
    let deep = "[".repeat(100_000);
    let maps = "{\"flags\": ".repeat(100_000);
    let steps = "- ".repeat(100_000);
    let bomb = (1..60).fold("flags: &a0 [x, x, x]\n".to_owned(), |text, at| {
        format!("{text}f{at}: &a{at} [*a{0}, *a{0}, *a{0}]\n", at - 1)
    });
    for text in [deep, maps, steps, bomb] {
        assert!(Config::parse(&text).is_err(), "{}", &text[..20]);
    }
}

#[test]
fn device_lists_are_told_one_by_one_or_with_commas() {
    use DeviceListStrategy as L;

    let of = |text: &str| {
        let config = parse(&format!("flags: {{plugin: {{deviceListStrategy: {text}}}}}"));
        config.flags.plugin.device_list_strategies
    };
    assert_eq!(of("envvar"), [L::Envvar]);
    assert_eq!(of("'cdi-annotations,cdi-cri'"), [L::CdiAnnotations, L::CdiCri]);
    assert_eq!(
        of("[cdi-cri, volume-mounts, cdi-cri]"),
        [L::CdiCri, L::VolumeMounts]
    );
    assert_eq!(of("''"), []);
    assert_eq!(of("[]"), []);
}

#[test]
fn intervals_are_read_as_go_reads_them() {
    let of = |text: &str| text.parse::<Interval>().ok();
    let every = |nanos| Some(Interval::from_nanos(nanos));
    assert_eq!(of("60s"), every(60_000_000_000));
    assert_eq!(of("1h2m3.5s"), every(3_723_500_000_000));
    assert_eq!(of("1.5h"), every(5_400_000_000_000));
    assert_eq!(of("250ms"), every(250_000_000));
    assert_eq!(of("10us"), every(10_000));
    assert_eq!(of("10\u{b5}s"), every(10_000));
    assert_eq!(of(".5s"), every(500_000_000));
    assert_eq!(of("+1s"), every(1_000_000_000));
    assert_eq!(of("0"), every(0));
    assert_eq!(of("infinite"), Some(Interval::Infinite));
    for text in [
        "",
        "s",
        "1",
        "-1s",
        "1x",
        ".s",
        "1..2s",
        "99999999999h",
        "1s ",
        "Infinite",
    ] {
        assert_eq!(of(text), None, "{text}");
    }
    let bare = |text: &str| {
        let config = parse(&format!("flags: {{gfd: {{sleepInterval: {text}}}}}"));
        Some(config.flags.gfd.sleep_interval)
    };
    assert_eq!(bare("60000000000"), every(60_000_000_000));
    assert_eq!(bare("1e9"), every(1_000_000_000));
    assert_eq!(bare("infinite"), Some(Interval::Infinite));
    for text in ["-1", "-1.5", ".nan", ".inf", "1e30", "true"] {
        assert!(!refused(&format!("flags: {{gfd: {{sleepInterval: {text}}}}}")).is_empty());
    }
    for interval in ["90s", "5ns", "infinite"] {
        assert_eq!(of(interval).unwrap().to_string(), interval);
    }
}

#[test]
fn names_are_of_our_domain_and_of_63_characters_at_most() {
    assert_eq!(resource_name("gpu").unwrap(), "nvidia.com/gpu");
    assert_eq!(
        resource_name("nvidia.com/mig-1g.5gb.me").unwrap(),
        "nvidia.com/mig-1g.5gb.me"
    );
    let longest = "a".repeat(LONGEST_NAME - DOMAIN.len());
    assert_eq!(resource_name(&longest).unwrap().len(), 63);
    assert!(
        resource_name(&format!("{longest}a"))
            .unwrap_err()
            .contains("64 characters")
    );
    for wrong in [
        "",
        "nvidia.com/",
        "example.com/gpu",
        "-gpu",
        "gpu-",
        "g pu",
        "g\u{fc}",
        "a/b",
        "nvidia.com/a/b",
    ] {
        assert!(resource_name(wrong).is_err(), "{wrong}");
    }
    // The suffix counts.
    let text =
        format!("sharing: {{mps: {{renameByDefault: true, resources: [{{name: {longest}, replicas: 2}}]}}}}");
    assert!(refused(&text).contains("70 characters"), "{}", refused(&text));
}

/// Pain #6 of the fact sheet `devices`, section 7 (#1548): what `failRequestsGreaterThanOne` means isn't clear.
#[test]
fn the_command_line_stands_above_the_environment_and_that_above_the_file() {
    let line = Overrides {
        mig_strategy: Some(MigStrategy::Mixed),
        ..Overrides::default()
    };
    let environment = Overrides {
        mig_strategy: Some(MigStrategy::None),
        driver_root: Some("/from/environment".into()),
        ..Overrides::default()
    };
    let file = parse("flags: {migStrategy: single, nvidiaDriverRoot: /from/file, gdsEnabled: true}");
    let flags = file.with(&line.or(environment)).unwrap().flags;
    assert_eq!(flags.mig_strategy, MigStrategy::Mixed);
    assert_eq!(flags.driver_root.as_deref(), Some(Path::new("/from/environment")));
    assert_eq!(flags.dev_root(), Some(Path::new("/from/environment")));
    assert!(flags.gds);
    assert!(!flags.mofed);
}

#[test]
fn every_override_reaches_its_field() {
    let full = parse(ALL);
    let Config { flags, imex, .. } = full.clone();
    let Flags { plugin, gfd, .. } = flags.clone();
    let overrides = Overrides {
        mig_strategy: Some(flags.mig_strategy),
        fail_on_init_error: Some(flags.fail_on_init_error),
        mps_root: flags.mps_root.clone(),
        driver_root: flags.driver_root.clone(),
        dev_root: flags.dev_root.clone(),
        gdrcopy: Some(flags.gdrcopy),
        gds: Some(flags.gds),
        mofed: Some(flags.mofed),
        use_node_feature_api: flags.use_node_feature_api,
        device_discovery: Some(flags.device_discovery),
        pass_device_specs: Some(plugin.pass_device_specs),
        device_list_strategies: Some(plugin.device_list_strategies),
        device_id_strategy: Some(plugin.device_id_strategy),
        cdi_annotation_prefix: Some(plugin.cdi_annotation_prefix),
        cdi_hook_path: plugin.cdi_hook_path,
        container_driver_root: Some(plugin.container_driver_root),
        sharing_policy: Some(plugin.sharing_policy),
        oneshot: Some(gfd.oneshot),
        no_timestamp: Some(gfd.no_timestamp),
        sleep_interval: Some(gfd.sleep_interval),
        output_file: gfd.output_file,
        machine_type_file: Some(gfd.machine_type_file),
        imex_channels: Some(imex.channels.clone()),
        imex_required: Some(imex.required),
    };
    let of_defaults = Config::default().with(&overrides).unwrap();
    assert_eq!((of_defaults.flags, of_defaults.imex), (flags, imex));
    // And none changes what isn't named.
    assert_eq!(full.clone().with(&Overrides::default()), Ok(full));
    assert_eq!(overrides.clone().or(Overrides::default()), overrides);
    assert_eq!(Overrides::default().or(overrides.clone()), overrides);
    let channels = Overrides {
        imex_channels: Some(vec![3]),
        ..Overrides::default()
    };
    assert!(Config::default().with(&channels).is_err());
}

#[test]
fn patterns_fit_the_whole_and_a_star_anything() {
    for (pattern, text, fits) in [
        ("*", "", true),
        ("*", "NVIDIA H100", true),
        ("*H100*", "NVIDIA H100 80GB HBM3", true),
        ("*H100", "NVIDIA H100 80GB HBM3", false),
        ("NVIDIA*HBM3", "NVIDIA H100 80GB HBM3", true),
        ("H100", "NVIDIA H100", false),
        ("1g.5gb", "1g.5gb", true),
        ("1g.5gb", "1g.5gb+me", false),
        ("1g.5gb", "1gx5gb", false),
        ("1g.*", "1g.10gb+me", true),
        ("a*b*a", "aba", true),
        ("a*b*a", "ab", false),
        ("a*a", "a", false),
        ("", "", true),
        ("", "a", false),
        ("**", "x", true),
    ] {
        assert_eq!(Pattern::new(pattern).fits(text), fits, "{pattern} {text}");
    }
}

/// Texts that look like a configuration, so that what is tried is more than the reader of YAML.
fn likely() -> impl Strategy<Value = String> {
    let words = "version flags plugin gfd resources sharing timeSlicing mps name rename devices replicas \
                 renameByDefault failRequestsGreaterThanOne migStrategy sleepInterval deviceListStrategy imex \
                 channelIDs gpus mig pattern v1 all 2 -1 0:1 GPU-1 true null ~ nvidia.com/gpu infinite 1h {} [] \
                 - &a *a <<";
    let word = prop::sample::select(
        words
            .split(' ')
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>(),
    );
    let piece = (
        word,
        prop::sample::select(vec![
            ": ", ":\n", "\n", "\n  ", "\n    - ", ", ", "{", "}", "[", "]", " ",
        ]),
    );
    prop::collection::vec(piece, 0..40).prop_map(|pieces| {
        pieces
            .into_iter()
            .flat_map(|(word, after)| [word, after])
            .collect()
    })
}

proptest! {
    #[test]
    fn any_text_is_a_configuration_or_refused_with_a_reason(text in prop_oneof![likely(), "\\PC*", ".*"]) {
        match Config::parse(&text) {
            Ok(config) => { let _ = config.with(&Overrides::default()); }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn any_interval_that_is_read_is_written_and_read_alike(text in "[0-9.]{0,6}(ns|us|ms|s|m|h)?([0-9.]{0,3}s)?") {
        if let Ok(interval) = text.parse::<Interval>() {
            prop_assert_eq!(interval.to_string().parse::<Interval>(), Ok(interval));
        }
    }

    #[test]
    fn a_pattern_fits_as_the_same_regular_expression_does(pattern in "[ab*]{0,6}", text in "[ab]{0,8}") {
        let expression = format!("^{}$", pattern.replace('*', ".*"));
        let fits = regex_lite::Regex::new(&expression).unwrap().is_match(&text);
        prop_assert_eq!(Pattern::new(&pattern).fits(&text), fits);
    }
}
