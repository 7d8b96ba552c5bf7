//! Databases: passwords, positions, roles.

use super::*;

#[test]
fn a_password_has_one_place_and_it_exists() {
    let mysql = || valid(CheckType::Mysql);
    let both = WrittenCheck {
        password_file: text("/nowhere/pw"),
        password_env: text("PATH"),
        ..mysql()
    };
    let (key, text) = refused(both);
    assert_eq!(key, Some("password_env"));
    assert!(
        text.contains("from a file and from the environment"),
        "{text}"
    );
    let from = |variable: &str| {
        refused(WrittenCheck {
            password_env: Field::Given(variable.to_owned()),
            ..mysql()
        })
    };
    let unset = "LB_NO_SUCH_VARIABLE";
    assert!(
        from(unset)
            .1
            .contains("LB_NO_SUCH_VARIABLE is not set in lbd's environment")
    );
    let (_, text) = from("my-secret!");
    assert!(
        text.contains("is no variable's name") && !text.contains("my-secret"),
        "{text}"
    );
    built(WrittenCheck {
        password_env: Field::Given("PATH".to_owned()),
        ..mysql()
    });
    let redis = WrittenCheck {
        user: Field::Given("check".to_owned()),
        ..written(CheckType::Redis)
    };
    assert_eq!(refused(redis).0, Some("user"));
}

#[test]
fn a_gtid_is_a_position_and_no_sql() {
    let with = |gtid: &str| WrittenCheck {
        gtid: text(gtid),
        ..valid(CheckType::Mysql)
    };
    built(with("0-1-100,1-2-3"));
    built(with("3E11FA47-71CA-11E1-9E33-C80AA9429562:1-5"));
    assert_eq!(refused(with("1'); DROP TABLE x; --")).0, Some("gtid"));
}

fn database(role: Role) -> ServiceDraft {
    let mut service = web(vec![valid(CheckType::Mysql)]);
    service.verdict.role = given(role);
    service
}

#[test]
fn a_writer_is_found_out_before_it_gets_anything_and_old_ones_get_no_more() {
    let (service, warnings) = good(database(Role::Writer));
    assert_eq!(
        warnings, [""; 0],
        "nobody is known yet, and that is no news"
    );
    let policies = service.policies;
    assert_eq!(
        (policies.on_remove, policies.on_all_down),
        (OnRemove::Reset, OnAllDown::Reset)
    );
    assert_eq!(service.backends["web1"].fit, Fit::Unfit);
    assert!(matches!(&service.checks[0].kind, CheckKind::Mysql(one) if one.replication.observe));
    let (reader, _) = good(database(Role::Reader));
    assert_eq!(reader.backends["web1"].fit, Fit::Fit);
    assert_eq!(reader.policies.on_all_down, OnAllDown::LastGood);
}

#[test]
fn a_writers_policies_send_no_write_to_a_former_primary() {
    let mut service = database(Role::Writer);
    service.policies.on_all_down = given(OnAllDown::LastGood);
    let (key, text) = broken(service);
    assert_eq!(key, Some("on_all_down"));
    assert!(
        text.contains("with role = \"writer\" it is \"reset\""),
        "{text}"
    );
    let mut service = database(Role::Writer);
    service.policies.on_remove = given(OnRemove::Keep);
    service.policies.on_all_down = given(OnAllDown::Drop);
    let (service, warnings) = good(service);
    assert_eq!(service.policies.on_remove, OnRemove::Keep);
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("leaves connections with a primary that has been demoted"));
}

#[test]
fn a_role_is_told_by_a_database_and_by_nobody_else() {
    for role in [Role::Writer, Role::Reader] {
        let mut service = database(role);
        service.checks = vec![draft_of(valid(CheckType::Tcp))];
        let (key, text) = broken(service);
        assert_eq!(key, Some("role"));
        assert!(
            text.contains("needs a check of type mysql, postgres or redis"),
            "{text}"
        );
    }
    let mut service = database(Role::Writer);
    service.backends[0].checks = given(OwnChecks::None);
    assert!(
        broken(service)
            .1
            .starts_with("service `web`, backend `web1`: role \"writer\" needs")
    );
    let mut service = database(Role::Writer);
    service.checks = vec![];
    service.backends[0].own_checks = Some(vec![draft_of(valid(CheckType::Mysql))]);
    good(service);
    let mut service = database(Role::Reader);
    let decides = WrittenCheck {
        writable: given(false),
        ..valid(CheckType::Mysql)
    };
    service.checks = vec![draft_of(decides)];
    assert_eq!(broken(service).0, Some("writable"));
}

#[test]
fn lag_and_last_resort_are_for_readers() {
    let mut service = database(Role::Reader);
    service.verdict.max_lag_s = given(10);
    service.verdict.primary_as_last_resort = given(true);
    let (reader, _) = good(service.clone());
    assert_eq!(
        (reader.max_lag_s, reader.primary_as_last_resort),
        (Some(10), true)
    );
    service.verdict.role = given(Role::Writer);
    let errors = verdict(service).errors;
    let keys: Vec<_> = errors
        .iter()
        .map(|error| error.place.key.unwrap())
        .collect();
    assert_eq!(keys, ["max_lag", "primary_as_last_resort"]);
    let mut service = database(Role::Reader);
    service.verdict.max_lag_s = given(86_401);
    assert_eq!(broken(service).0, Some("max_lag"));
    let mut service = web(vec![]);
    service.verdict.hold_down_s = given(3_601);
    assert_eq!(broken(service).0, Some("hold_down"));
}
