use super::*;

const MINUTE: i64 = 60_000_000;

fn ticket(id: &str) -> Ticket {
    Ticket {
        id: TicketId(id.into()),
        shard: 3,
        relay: 77,
        session: "s-1".into(),
        digest: [7; 32],
        user: "alice@example.com".into(),
        groups: vec!["engineering".into()],
        actor: vec![],
        target: "orders".into(),
        statement: "DELETE FROM orders".into(),
        binds: vec![Some("1".into()), None],
        rule: "deletes-need-a-dba".into(),
        approvers: vec!["dba".into(), "carol".into()],
        count: 1,
        own: false,
        asked_at_us: 0,
        expires_at_us: 10 * MINUTE,
    }
}

fn board(tickets: &[Ticket]) -> Board {
    let mut board = Board::default();
    for ticket in tickets {
        board.admits(ticket).unwrap();
        board.ask(ticket.clone());
    }
    board
}

fn person(user: &str, groups: &[&str]) -> Ruler {
    let groups = groups.iter().map(|group| group.to_string()).collect();
    Ruler::Token { user: user.into(), groups, actor: vec![], agent: false }
}

fn dba(user: &str) -> Ruler {
    person(user, &["dba"])
}

fn approve(board: &mut Board, id: &str, ruler: &Ruler, now_us: i64) -> Result<&'static str, RuleError> {
    board.rule(&TicketId(id.into()), ruler, Verdict::Approve, "fine".into(), now_us).map(Case::state)
}

fn reject(board: &mut Board, id: &str, ruler: &Ruler, now_us: i64) -> Result<&'static str, RuleError> {
    board.rule(&TicketId(id.into()), ruler, Verdict::Reject, "no".into(), now_us).map(Case::state)
}

/// The rulings posted since the last look.
fn posted(board: &mut Board) -> Vec<Ruling> {
    let effects = board.take_effects().into_iter();
    effects
        .filter_map(|effect| match effect {
            Effect::Post { shard, relay, ticket: _, ruling } => {
                assert_eq!((shard, relay), (3, 77), "to whoever holds the statement");
                Some(ruling)
            }
            Effect::Note(_) => None,
        })
        .collect()
}

#[test]
fn one_approval_by_a_member_of_the_group_is_posted_with_name_and_reason() {
    let mut board = board(&[ticket("a")]);
    assert_eq!(approve(&mut board, "a", &dba("bob"), 1), Ok("approved"));
    assert_eq!(posted(&mut board), [Ruling::Approved { by: vec!["bob".into()], reason: "fine".into() }]);
    assert_eq!((board.pending(), board.next_expiry_us()), (0, None));
}

#[test]
fn an_approver_may_be_named_as_a_user() {
    let mut board = board(&[ticket("a")]);
    assert_eq!(approve(&mut board, "a", &person("carol", &[]), 1), Ok("approved"));
}

#[test]
fn two_of_n_needs_two_people_whatever_case_they_write_their_names_in() {
    let mut board = board(&[Ticket { count: 2, ..ticket("a") }]);
    assert_eq!(approve(&mut board, "a", &dba("Bob"), 1), Ok("pending"));
    assert_eq!(approve(&mut board, "a", &dba("bob"), 2), Err(RuleError::SecondVote("bob".into())));
    assert_eq!(posted(&mut board), []);
    assert_eq!(approve(&mut board, "a", &dba("dave"), 3), Ok("approved"));
    let by = vec!["Bob".to_string(), "dave".to_string()];
    assert_eq!(posted(&mut board), [Ruling::Approved { by, reason: "fine; fine".into() }]);
}

#[test]
fn a_local_ruling_and_a_token_of_the_same_name_are_one_person() {
    let terms = Ticket { count: 2, approvers: vec!["local".into(), "dba".into()], ..ticket("a") };
    let mut board = board(&[terms]);
    assert_eq!(approve(&mut board, "a", &Ruler::Local { user: "bob".into() }, 1), Ok("pending"));
    assert_eq!(approve(&mut board, "a", &dba("bob"), 2), Err(RuleError::SecondVote("bob".into())));
}

#[test]
fn who_rules_through_an_application_is_no_second_person_and_an_agent_rules_on_nothing() {
    let mut board = board(&[Ticket { count: 2, ..ticket("a") }]);
    let through = |actor: &str, agent| Ruler::Token {
        user: "bob".into(),
        groups: vec!["dba".into()],
        actor: vec![actor.into()],
        agent,
    };
    for rule in [approve, reject] {
        let refused = rule(&mut board, "a", &through("bot@2", true), 1).unwrap_err();
        let told = "bob via bot@2 speaks through an agent: a person rules with a token of their own";
        assert_eq!(refused.to_string(), told);
    }
    assert_eq!(approve(&mut board, "a", &through("web", false), 1), Ok("pending"));
    assert_eq!(approve(&mut board, "a", &dba("bob"), 2), Err(RuleError::SecondVote("bob".into())));
    approve(&mut board, "a", &dba("dave"), 3).unwrap();
    let by = vec!["bob via web".to_string(), "dave".to_string()];
    assert_eq!(posted(&mut board), [Ruling::Approved { by, reason: "fine; fine".into() }]);
}

#[test]
fn the_requester_may_not_rule_unless_the_rule_says_so() {
    let mut board = board(&[ticket("a"), Ticket { own: true, ..ticket("b") }]);
    let alice = dba("Alice@Example.com");
    assert_eq!(approve(&mut board, "a", &alice, 1), Err(RuleError::OwnRequest));
    assert_eq!(reject(&mut board, "a", &alice, 1), Err(RuleError::OwnRequest));
    assert_eq!(approve(&mut board, "b", &alice, 1), Ok("approved"));
    assert_eq!(board.pending(), 1);
}

#[test]
fn somebody_of_another_group_is_told_who_may_rule() {
    let mut board = board(&[ticket("a")]);
    let error = approve(&mut board, "a", &person("eve", &["engineering"]), 1).unwrap_err();
    assert_eq!(error.to_string(), "eve is not among the approvers: dba, carol");
    assert_eq!(posted(&mut board), []);
}

#[test]
fn local_is_the_sockets_owner_and_nobody_else() {
    let mut board = board(&[Ticket { approvers: vec!["local".into()], ..ticket("a") }, ticket("b")]);
    for impostor in [person("local", &["local"]), dba("bob")] {
        assert!(matches!(approve(&mut board, "a", &impostor, 1), Err(RuleError::NotAnApprover { .. })));
    }
    let owner = Ruler::Local { user: "dba".into() };
    assert!(matches!(approve(&mut board, "b", &owner, 1), Err(RuleError::NotAnApprover { .. })));
    assert_eq!(approve(&mut board, "a", &owner, 1), Ok("approved"));
    assert_eq!(posted(&mut board), [Ruling::Approved { by: vec!["local:dba".into()], reason: "fine".into() }]);
}

#[test]
fn one_rejection_ends_it_even_after_an_approval() {
    let mut board = board(&[Ticket { count: 2, ..ticket("a") }]);
    approve(&mut board, "a", &dba("bob"), 1).unwrap();
    assert_eq!(reject(&mut board, "a", &dba("dave"), 2), Ok("rejected"));
    assert_eq!(posted(&mut board), [Ruling::Rejected { by: "dave".into(), reason: "no".into() }]);
}

#[test]
fn an_ended_ticket_takes_no_further_ruling_and_posts_nothing_more() {
    let mut board = board(&[ticket("a")]);
    reject(&mut board, "a", &dba("bob"), 1).unwrap();
    posted(&mut board);
    assert_eq!(approve(&mut board, "a", &dba("dave"), 2), Err(RuleError::Ended("rejected")));
    board.abandon(&TicketId("a".into()), 3);
    board.abandon_shard(3, 3);
    board.expire(i64::MAX);
    assert_eq!(posted(&mut board), []);
    assert_eq!(board.case(&TicketId("a".into())).unwrap().state(), "rejected");
}

#[test]
fn a_ruling_that_comes_as_the_time_is_up_is_too_late() {
    let mut board = board(&[ticket("a")]);
    assert_eq!(board.next_expiry_us(), Some(10 * MINUTE));
    assert_eq!(approve(&mut board, "a", &dba("bob"), 10 * MINUTE), Err(RuleError::Ended("expired")));
    assert_eq!(posted(&mut board), [Ruling::Expired]);
}

#[test]
fn only_what_is_past_its_time_expires() {
    let mut board = board(&[ticket("a"), Ticket { expires_at_us: 20 * MINUTE, ..ticket("b") }]);
    board.expire(10 * MINUTE - 1);
    assert_eq!(posted(&mut board), []);
    board.expire(10 * MINUTE);
    assert_eq!(posted(&mut board), [Ruling::Expired]);
    assert_eq!((board.pending(), board.next_expiry_us()), (1, Some(20 * MINUTE)));
}

#[test]
fn a_requester_who_leaves_abandons_the_ticket() {
    let mut board = board(&[ticket("a"), ticket("b")]);
    board.abandon(&TicketId("a".into()), 1);
    assert_eq!(posted(&mut board), [Ruling::Abandoned]);
    board.abandon_shard(3, 2);
    assert_eq!(posted(&mut board), [Ruling::Abandoned]);
    assert_eq!(approve(&mut board, "b", &dba("bob"), 3), Err(RuleError::Ended("abandoned")));
}

#[test]
fn after_a_restart_whatever_waited_is_expired_and_never_approved() {
    let half_approved = {
        let mut board = board(&[Ticket { count: 2, ..ticket("a") }]);
        approve(&mut board, "a", &dba("bob"), 1).unwrap();
        board.case(&TicketId("a".into())).unwrap().clone()
    };
    let approved =
        Case { end: Some((Ruling::Approved { by: vec![], reason: String::new() }, 5)), ..half_approved.clone() };
    let approved = Case { ticket: ticket("b"), ..approved };
    let mut board = Board::restore(vec![half_approved, approved], 9);
    assert_eq!(board.take_effects(), []);
    assert_eq!(board.case(&TicketId("a".into())).unwrap().end, Some((Ruling::Expired, 9)));
    assert_eq!(board.case(&TicketId("b".into())).unwrap().state(), "approved");
    assert_eq!(approve(&mut board, "a", &dba("dave"), 10), Err(RuleError::Ended("expired")));
    assert_eq!(posted(&mut board), []);
}

#[test]
fn an_id_that_is_taken_is_refused_and_the_first_ticket_stands() {
    let board = board(&[ticket("a")]);
    assert_eq!(board.admits(&Ticket { statement: "DROP TABLE x".into(), ..ticket("a") }), Err(AskError::Duplicate));
    assert_eq!(board.case(&TicketId("a".into())).unwrap().ticket.statement, "DELETE FROM orders");
}

#[test]
fn the_board_is_full_by_bytes_and_empties_again() {
    let mut board = board(&[Ticket { statement: "x".repeat(TICKETS_PENDING_BYTES_MAX - 100), ..ticket("a") }]);
    let large = Ticket { statement: "y".repeat(200), ..ticket("b") };
    assert_eq!(board.admits(&large), Err(AskError::Full));
    reject(&mut board, "a", &dba("bob"), 1).unwrap();
    assert_eq!(board.admits(&large), Ok(()));
}

#[test]
fn old_ended_tickets_are_forgotten() {
    let mut board = Board::default();
    for n in 0..TICKETS_ENDED_KEPT + 5 {
        board.ask(ticket(&n.to_string()));
        reject(&mut board, &n.to_string(), &dba("bob"), 1).unwrap();
    }
    assert_eq!(board.cases(false).len(), TICKETS_ENDED_KEPT);
    assert!(board.case(&TicketId("4".into())).is_none());
    assert!(board.case(&TicketId("5".into())).is_some());
}

#[test]
fn of_a_ticket_that_has_ended_only_the_beginning_is_kept() {
    let long = Ticket { statement: "x".repeat(1 << 20), binds: vec![Some("y".repeat(1 << 20))], ..ticket("a") };
    let mut board = board(&[long.clone(), Ticket { id: TicketId("b".into()), ..long }]);
    board.abandon(&TicketId("a".into()), 1);
    let ended = &board.case(&TicketId("a".into())).unwrap().ticket;
    assert!(ended.statement.len() < 5000 && ended.binds.iter().flatten().map(String::len).sum::<usize>() < 5000);
    assert!(ended.statement.ends_with("(cut, 1048576 bytes in all)"));
    let waits = &board.case(&TicketId("b".into())).unwrap().ticket;
    assert_eq!(waits.statement.len(), 1 << 20, "a reviewer reads all of it");
    board.abandon(&TicketId("b".into()), 1);
    assert_eq!((board.pending(), board.pending_bytes), (0, 0));
}
