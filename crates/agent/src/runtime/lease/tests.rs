use pitcrew_apiserver::ApiServer;

use super::*;

const DURATION: Duration = Duration::from_mins(10);
const ALMOST: Duration = Duration::from_secs(599);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_764_000_000 + seconds).unwrap()
}

fn lease(server: &ApiServer, holder: &str) -> ClusterLease {
    let client = Client::new(server.clone(), "default");
    ClusterLease::new(client, "default", "pitcrew-restart", holder, DURATION)
}

async fn read(server: &ApiServer) -> LeaseSpec {
    let api: Api<Lease> = Api::namespaced(Client::new(server.clone(), "default"), "default");
    api.get("pitcrew-restart").await.unwrap().spec.unwrap()
}

#[tokio::test(start_paused = true)]
async fn one_node_at_a_time_holds_it() {
    let server = ApiServer::new();
    let (mut a, mut b) = (lease(&server, "a"), lease(&server, "b"));
    assert_eq!(a.acquire(at(0)).await.unwrap(), Turn::Ours);
    assert_eq!(b.acquire(at(1)).await.unwrap(), Turn::Others("a".to_owned()));
    assert_eq!(a.acquire(at(2)).await.unwrap(), Turn::Ours, "it renews its own");
    let spec = read(&server).await;
    assert_eq!(spec.acquire_time, Some(MicroTime(at(0))));
    assert_eq!(spec.renew_time, Some(MicroTime(at(2))));
    b.release().await.unwrap();
    assert_eq!(
        read(&server).await.holder_identity.as_deref(),
        Some("a"),
        "only the holder gives it back"
    );
    a.release().await.unwrap();
    assert_eq!(b.acquire(at(3)).await.unwrap(), Turn::Ours);
    assert_eq!(read(&server).await.lease_transitions, Some(1));
}

#[tokio::test(start_paused = true)]
async fn of_two_that_find_it_free_one_gets_it() {
    for round in 0..20 {
        let server = ApiServer::builder().seed(round).build();
        let (mut a, mut b) = (lease(&server, "a"), lease(&server, "b"));
        let (a, b) = tokio::join!(a.acquire(at(0)), b.acquire(at(0)));
        let ours = [a.unwrap(), b.unwrap()]
            .iter()
            .filter(|turn| **turn == Turn::Ours)
            .count();
        assert_eq!(ours, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_nobody_renews_is_free_after_its_duration_whatever_the_clocks_say() {
    let server = ApiServer::new();
    let (mut a, mut b) = (lease(&server, "a"), lease(&server, "b"));
    // A clock that is a day behind.
    assert_eq!(a.acquire(at(-86_400)).await.unwrap(), Turn::Ours);
    assert!(matches!(b.acquire(at(0)).await.unwrap(), Turn::Others(_)));
    tokio::time::advance(ALMOST).await;
    assert!(matches!(b.acquire(at(600)).await.unwrap(), Turn::Others(_)));
    a.acquire(at(-85_800)).await.unwrap();
    assert!(matches!(b.acquire(at(601)).await.unwrap(), Turn::Others(_)));
    tokio::time::advance(ALMOST).await;
    assert!(
        matches!(b.acquire(at(1200)).await.unwrap(), Turn::Others(_)),
        "it was renewed"
    );
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(b.acquire(at(1201)).await.unwrap(), Turn::Ours);
    assert_eq!(
        a.acquire(at(-84_000)).await.unwrap(),
        Turn::Others("b".to_owned()),
        "it learns that it lost it"
    );
}
