//! Nodes that the reference was not run on: what is missing, what is elsewhere, and every built-in scenario.

use pitcrew_cdi::generate::{GenerateError, Generated, Naming, Options, gpus, management};
use pitcrew_core::Inventory;
use pitcrew_core::Reading;
use pitcrew_core::ports::InventorySource as _;
use pitcrew_scenario::{Change, HostRoot, Machine, Scenario};

fn options() -> Options {
    Options::new(pitcrew_cdi::spec::GPU, "/opt/pitcrew/pitcrew-hook").unwrap()
}

/// A worker with the scenario's GPUs, and more of what the manifest says.
fn node(scenario: &str, more: &str) -> (Inventory, HostRoot) {
    let text = format!("description: x\nlike: rke2\nscenario: {scenario}\n{more}");
    let root = HostRoot::parse(&text, "node", &|name| {
        HostRoot::builtin_text(name).map(str::to_owned)
    })
    .unwrap();
    let inventory = root.machine().unwrap().clone().inventory().unwrap();
    (inventory, root)
}

fn names(generated: &Generated) -> Vec<&str> {
    generated
        .spec
        .devices
        .iter()
        .map(|device| device.name.as_str())
        .collect()
}

#[test]
fn every_scenario_has_a_valid_specification_of_the_lowest_version() {
    for (scenario, _) in Scenario::builtin_names() {
        let (inventory, root) = node(scenario, "");
        for generated in [
            gpus(&inventory, &root, &options()),
            management(Some(&inventory), &root, &options()),
        ] {
            let spec = generated
                .unwrap_or_else(|error| panic!("{scenario}: {error}"))
                .spec;
            assert_eq!(spec.problems(), [], "{scenario}");
            assert_eq!(spec.version, spec.needs().to_string(), "{scenario}");
            assert!(
                spec.container_edits
                    .hooks
                    .iter()
                    .all(|hook| hook.args[0] == "pitcrew-hook")
            );
        }
    }
}

#[test]
fn devices_are_called_as_the_device_plugin_asks() {
    let (inventory, root) = node("mixed", "");
    let plugin = Options {
        names: vec![Naming::Uuid],
        all: false,
        ..options()
    };
    let generated = gpus(&inventory, &root, &plugin).unwrap();
    assert!(
        names(&generated)
            .iter()
            .all(|name| name.starts_with("GPU-") || name.starts_with("MIG-"))
    );
    assert_eq!(generated.spec.version, "0.3.0");
    let typed = Options {
        names: vec![Naming::TypeIndex],
        ..options()
    };
    let generated = gpus(&inventory, &root, &typed).unwrap();
    assert_eq!(names(&generated)[..2], ["all", "gpu1"]);
    assert!(names(&generated).contains(&"mig0:2"));
}

#[test]
fn a_driver_that_no_loader_knows_of_is_found_where_installers_put_it() {
    let (inventory, root) = node("t4", "driver: {libraries: /usr/local/nvidia/lib64}");
    let spec = gpus(&inventory, &root, &options()).unwrap().spec;
    let folder = "NVIDIA_CTK_LIBCUDA_DIR=/usr/local/nvidia/lib64".to_owned();
    assert!(spec.container_edits.env.contains(&folder));
    let (inventory, root) = node("t4", "driver: {libraries: /srv/nvidia}");
    let elsewhere = gpus(&inventory, &root, &options()).unwrap_err();
    assert!(matches!(elsewhere, GenerateError::NoLibraries { .. }));
    let told = Options {
        library_dirs: vec!["/srv/nvidia".into()],
        ..options()
    };
    assert!(gpus(&inventory, &root, &told).is_ok());
}

#[test]
fn libraries_of_another_version_than_the_driver_says_are_refused() {
    let (mut inventory, root) = node("t4", "");
    let there = inventory.driver.version.value().unwrap().clone();
    inventory.driver.version = Reading::Value("999.1.2".to_owned());
    let error = gpus(&inventory, &root, &options()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("no libraries of NVIDIA's driver 999.1.2 were found under `/`, only of {there}")
    );
    // Where nobody says the version, that of the files is taken.
    inventory.driver.version = Reading::Failed("?".to_owned());
    assert!(gpus(&inventory, &root, &options()).is_ok());
}

#[test]
fn a_gpu_that_can_not_be_given_away_is_left_out_and_told() {
    let (mut inventory, root) = node("h100x8", "remove: [/dev/nvidia3]");
    inventory.gpus[5].readings.minor = Reading::Failed("lost".to_owned());
    let generated = gpus(&inventory, &root, &options()).unwrap();
    let index: Vec<&str> = names(&generated)
        .into_iter()
        .filter(|name| name.len() == 1)
        .collect();
    assert_eq!(index, ["0", "1", "2", "4", "6", "7"]);
    let address = |at: usize| inventory.gpus[at].pci.address;
    assert_eq!(
        generated.remarks,
        [
            format!("GPU 3 ({}): `/dev/nvidia3` is not there", address(3)),
            format!(
                "GPU 5 ({}): the number of its device node can't be read",
                address(5)
            ),
        ]
    );
}

#[test]
fn without_a_driver_there_is_no_specification() {
    let (inventory, root) = node("t4", "");
    root.machine().unwrap().change(&Change::UnloadDriver).unwrap();
    let error = gpus(&inventory, &root, &options()).unwrap_err();
    assert!(matches!(error, GenerateError::NoDevices(_)), "{error}");
    let error = management(None, &root, &options()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no GPU can be given to a container: `/dev` has no node of NVIDIA's driver"
    );
}

#[test]
fn a_mig_device_whose_capabilities_have_no_node_is_left_out_alone() {
    let (inventory, root) = node("mixed", "remove: [/dev/nvidia-caps/nvidia-cap12]");
    let generated = gpus(&inventory, &root, &options()).unwrap();
    assert!(!names(&generated).contains(&"0:1"));
    assert!(names(&generated).contains(&"0:0") && names(&generated).contains(&"0:2"));
    assert_eq!(generated.remarks.len(), 1, "{:?}", generated.remarks);
    assert!(generated.remarks[0].ends_with("`/dev/nvidia-caps/nvidia-cap12` is not there"));
    let (inventory, root) = node("mixed", "remove: [/proc/driver/nvidia-caps]");
    let generated = gpus(&inventory, &root, &options()).unwrap();
    assert_eq!(generated.remarks.len(), 3, "{:?}", generated.remarks);
}

#[test]
fn a_mig_device_that_is_made_later_is_in_the_next_specification() {
    let machine = Machine::new(Scenario::builtin("mixed").unwrap());
    let root = HostRoot::over(machine.clone()).unwrap();
    let mut looking = machine.clone();
    let uuid = looking.inventory().unwrap().gpus[0]
        .readings
        .mig_devices
        .value()
        .unwrap()
        .last()
        .unwrap()
        .clone();
    let generated = gpus(&looking.inventory().unwrap(), &root, &options()).unwrap();
    assert!(names(&generated).contains(&uuid.uuid.as_str()));
    let gpu = machine.uuids()[0].clone();
    pitcrew_core::ports::Mig::destroy(&mut looking, &gpu, uuid.gpu_instance).unwrap();
    let generated = gpus(&looking.inventory().unwrap(), &root, &options()).unwrap();
    assert!(!names(&generated).contains(&uuid.uuid.as_str()));
}
