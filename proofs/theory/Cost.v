(** * A query of [n] keys costs [O(n^(1/N))], and [L] queries [O(L^(1 + 1/N))] (SPEC 2.5.4)

    With [M] of [N] steps left the segment at hand has [O(n^(M/N))] keys.  The [M]-th root of that,
    [O(n^(1/N))], is how many stripes it has, and their spans have [O(n^((M-1)/N))] keys: the same
    with one step less. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule Powers Causality AmGm LowerBound LevelCost.
Import ListNotations.
Open Scope Z_scope.

(** ** One path *)

(** From a bound by the segment's size [s] to one by the context's size [n]: if [s^N <= C n^M] then
    [x^M <= A^M s^p] gives [x^N <= A^N C n^p].  Both sides are compared by their [M]-th powers, and
    [C^p <= C^M]. *)
Lemma bound_by_context : forall N M p x A C s n,
  0 < N -> 0 < M -> 0 <= p <= M -> 0 <= x -> 0 <= A -> 1 <= C -> 0 <= s -> 0 <= n ->
  s ^ N <= C * n ^ M -> x ^ M <= A ^ M * s ^ p -> x ^ N <= A ^ N * C * n ^ p.
Proof.
  intros N M p x A C s n N_pos M_pos p_range x_nonneg A_nonneg C_pos s_nonneg n_nonneg small bound.
  assert (x_power : 0 <= x ^ N) by (apply Z.pow_nonneg; lia).
  assert (A_power : 0 <= A ^ N) by (apply Z.pow_nonneg; lia).
  assert (n_power : 0 <= n ^ p) by (apply Z.pow_nonneg; lia).
  apply (pow_le_iff M); [exact M_pos | exact x_power | |].
  { apply Z.mul_nonneg_nonneg; [apply Z.mul_nonneg_nonneg|]; lia. }
  rewrite pow_swap by lia.
  apply Z.le_trans with ((A ^ M * s ^ p) ^ N).
  { apply pow_mono. split; [apply Z.pow_nonneg; exact x_nonneg | exact bound]. }
  rewrite !Z.pow_mul_l, (pow_swap A M N), (pow_swap s p N), (pow_swap n p M) by lia.
  rewrite <- Z.mul_assoc. apply Z.mul_le_mono_nonneg_l; [apply Z.pow_nonneg; exact A_power|].
  apply Z.le_trans with ((C * n ^ M) ^ p).
  { apply pow_mono. split; [apply Z.pow_nonneg; exact s_nonneg | exact small]. }
  rewrite Z.pow_mul_l. apply Z.mul_le_mono_nonneg_r; [apply Z.pow_nonneg, Z.pow_nonneg; lia|].
  apply Z.pow_le_mono_r; lia.
Qed.

(** The constant: each of the [N - 1] levels multiplies the [N]-th power of the size by
    [growth^N]. *)
Definition cost_constant (N K : Z) : Z := growth N K ^ (N * (N - 1)).

Lemma growth_pos : forall N K, 0 < N -> 2 <= growth N K.
Proof.
  intros N K N_pos. destruct (growth_above N K 1) as [above _]; [lia|].
  rewrite Z.pow_1_r in above. exact above.
Qed.

(** The induction.  [C] is the constant so far, and [Y] has room for the levels to come. *)
Lemma remaining_cost : forall N K n Y ls w (s : segment) C,
  1 <= K -> 0 <= n -> standard K ls -> 0 <= w -> steps_of ls <= N -> 1 <= C ->
  (0 < s -> s ^ N <= C * n ^ steps_of ls) ->
  growth N K ^ (N * (steps_of ls - 1)) * C * n <= Y ->
  costs_at_most w ls s (repeat (root N Y) (S (length ls))).
Proof.
  intros N K n Y ls. induction ls as [|l rest IH];
    intros w s C K_pos n_nonneg std w_nonneg steps C_pos small room.
  all: assert (N_pos : 0 < N) by (unfold steps_of in steps; lia).
  all: assert (G_pos := growth_pos N K N_pos); set (G := growth N K) in *.
  - change (steps_of []) with 1 in *. rewrite Z.sub_diag, Z.mul_0_r, Z.pow_0_r in room.
    cbn [repeat length costs_at_most].
    assert (Y_nonneg : 0 <= Y) by lia.
    destruct (root_spec N Y N_pos Y_nonneg) as (root_nonneg & _ & _).
    destruct (Z_le_gt_dec s 0) as [empty|nonempty]; [lia|].
    apply root_ge_iff; [exact N_pos | exact Y_nonneg | lia |].
    rewrite Z.pow_1_r in small. lia.
  - set (M := steps_of (l :: rest)) in *.
    assert (M_next : steps_of rest = M - 1) by (unfold M, steps_of; cbn [length]; lia).
    assert (M_large : 2 <= M) by (unfold M, steps_of; cbn [length]; lia).
    destruct std as [l_std rest_std]. fold M in l_std.
    assert (constants : G ^ (N * (M - 1)) = G ^ (N * (M - 2)) * G ^ N)
      by (rewrite <- Z.pow_add_r by nia; f_equal; lia).
    assert (G_power : 2 ^ N <= G ^ N) by (apply pow_mono; lia).
    assert (two_power : 1 <= 2 ^ N) by (apply pow_at_least_1; lia).
    assert (later_power : 1 <= G ^ (N * (M - 2)))
      by (apply pow_at_least_1; [lia | apply Z.mul_nonneg_nonneg; lia]).
    assert (Y_nonneg : 0 <= Y).
    { apply Z.le_trans with (2 := room). rewrite constants.
      repeat apply Z.mul_nonneg_nonneg; lia. }
    destruct (root_spec N Y N_pos Y_nonneg) as (root_nonneg & _ & _).
    change (repeat (root N Y) (S (length (l :: rest))))
      with (root N Y :: repeat (root N Y) (S (length rest))).
    cbn [costs_at_most]. fold M.
    destruct (Z_le_gt_dec s 0) as [empty|nonempty].
    { assert (no_stripe : last_searched w M l s = 0).
      { destruct l; cbn [last_searched]; apply last_stripe_empty; cbn [held beyond]; lia. }
      unfold anchor_count, is_stripe. rewrite no_stripe.
      split; [destruct l; cbn [first_stripe]; lia|].
      intros i range. destruct l; cbn [first_stripe] in range; lia. }
    specialize (small ltac:(lia)). split.
    + apply root_ge_iff; [exact N_pos | exact Y_nonneg | unfold anchor_count; lia |].
      apply Z.le_trans with (2 ^ N * C * n ^ 1).
      * apply (bound_by_context N M 1 _ 2 C s n); try lia; [unfold anchor_count; lia|].
        rewrite Z.pow_1_r. apply anchor_cost with K; lia || assumption.
      * rewrite Z.pow_1_r. apply Z.le_trans with (2 := room).
        apply Z.mul_le_mono_nonneg_r; [exact n_nonneg|].
        apply Z.mul_le_mono_nonneg_r; [lia|]. rewrite constants.
        apply Z.le_trans with (1 * G ^ N); [lia | apply Z.mul_le_mono_nonneg_r; lia].
    + intros i chosen.
      assert (l_good := proj1 l_std).
      assert (order := span_in_segment w M l s i ltac:(lia) l_good w_nonneg chosen).
      assert (next_C : 1 <= G ^ N * C) by nia.
      apply IH with (G ^ N * C); try assumption; try lia.
      * intros _. rewrite M_next. cbn [held segment_of].
        apply (bound_by_context N M (M - 1) _ G C s n); try lia; [unfold size; lia|].
        apply span_cost; try lia; assumption.
      * rewrite M_next. replace (M - 1 - 1) with (M - 2) by lia.
        rewrite constants in room. lia.
Qed.

(** On every path each level scores at most [(C n)^(1/N)] anchors of a segment, and the final span
    holds at most [(C n)^(1/N)] keys. *)
Theorem path_cost : forall K ls w (n : segment),
  1 <= K -> standard K ls -> 0 <= w -> 0 <= n ->
  let N := steps_of ls in
  costs_at_most w ls n (repeat (root N (cost_constant N K * n)) (S (length ls))).
Proof.
  intros K ls w n K_pos std w_nonneg n_nonneg N.
  apply remaining_cost with K n 1; fold N; try assumption; try lia.
  unfold cost_constant. lia.
Qed.

(** ** A query

    A level scores the anchors of all segments that are kept, and keeps at most [top_k] of their
    spans, whichever the scores choose; the last step attends the keys of the spans that are left.
    A choice is a segment and one of its stripes. *)

Definition chosen (w M : Z) (l : level) (choice : segment * Z) : segment :=
  segment_of w M l (fst choice) (snd choice).

Fixpoint search_work (top_k w : Z) (ls : list level) (segments : list segment) (work : Z) : Prop :=
  match ls with
  | [] => work = total (map held segments)
  | l :: rest =>
      let M := steps_of ls in
      exists kept later,
        count kept <= top_k /\
        Forall (fun choice => In (fst choice) segments /\
                              is_stripe w M l (fst choice) (snd choice)) kept /\
        search_work top_k 0 rest (map (chosen w M l) kept) later /\
        work = total (map (anchor_count w M l) segments) + later
  end.

(** The window's keys are attended once. *)
Definition query_work (top_k : Z) (s : schedule) (n : segment) (work : Z) : Prop :=
  exists searched,
    search_work top_k (window_index s) (levels s) [n] searched /\
    work = searched + Z.min n (window_of s).

Lemma total_at_most : forall (A : Type) (f : A -> Z) bound xs,
  (forall x, In x xs -> f x <= bound) -> total (map f xs) <= count xs * bound.
Proof.
  intros A f bound xs each. induction xs as [|x xs IH]; [cbn; lia|].
  rewrite count_cons. cbn [map total fold_right]. fold (total (map f xs)).
  assert (head : f x <= bound) by (apply each; left; reflexivity).
  assert (tail : total (map f xs) <= count xs * bound)
    by (apply IH; intros y y_in; apply each; right; exact y_in).
  lia.
Qed.

(** If on every path level 1 offers at most [c] and the steps after it [cs], then level 1 costs [c]
    a segment, and the steps after it [top_k] times [cs]. *)
Lemma search_work_at_most : forall top_k ls c cs w segments work,
  0 <= top_k -> nonnegative (c :: cs) -> length cs = length ls ->
  Forall (fun n => costs_at_most w ls n (c :: cs)) segments ->
  search_work top_k w ls segments work ->
  work <= count segments * c + top_k * total cs.
Proof.
  intros top_k ls. induction ls as [|l rest IH];
    intros c cs w segments work top_k_nonneg nonneg steps cheap searched.
  - destruct cs as [|c' cs]; [|discriminate steps].
    cbn [search_work] in searched. subst work. cbn [total fold_right].
    rewrite Z.mul_0_r, Z.add_0_r. apply total_at_most. apply Forall_forall. exact cheap.
  - cbn [search_work] in searched. destruct cs as [|c' cs]; [discriminate steps|].
    destruct searched as (kept & later & few & choices & searched & ->).
    set (M := steps_of (l :: rest)) in *.
    rewrite Forall_forall in cheap, choices.
    assert (now : total (map (anchor_count w M l) segments) <= count segments * c).
    { apply total_at_most. intros n n_in. apply (cheap n n_in). }
    apply Forall_cons_iff in nonneg. destruct nonneg as [_ nonneg].
    assert (c'_nonneg : 0 <= c') by now apply Forall_cons_iff in nonneg.
    apply (IH c' cs) in searched; [| exact top_k_nonneg | exact nonneg | now injection steps |].
    + unfold count at 1 in searched. rewrite map_length in searched. fold (count kept) in searched.
      cbn [total fold_right]. fold (total cs). nia.
    + apply Forall_map, Forall_forall. intros choice choice_in.
      destruct (choices choice choice_in) as [segment_in chosen].
      apply (cheap (fst choice) segment_in). exact chosen.
Qed.

Lemma query_work_at_most : forall top_k s (n : segment) c cs work,
  0 <= top_k -> nonnegative (c :: cs) -> length cs = length (levels s) ->
  costs_at_most (window_index s) (levels s) n (c :: cs) ->
  query_work top_k s n work ->
  work <= c + top_k * total cs + window_of s.
Proof.
  intros top_k s n c cs work top_k_nonneg nonneg steps cheap (searched & is_search & ->).
  apply (search_work_at_most top_k _ c cs) in is_search; try assumption.
  - change (count [n]) with 1 in is_search. lia.
  - constructor; [exact cheap | constructor].
Qed.

(** ** All queries *)

(** [(1 + top_k (N - 1)) (C n)^(1/N)], and its [N]-th power is [work_constant * n]. *)
Definition work_bound (top_k N K n : Z) : Z :=
  (1 + top_k * (N - 1)) * root N (cost_constant N K * n).

Definition work_constant (top_k N K : Z) : Z := (1 + top_k * (N - 1)) ^ N * cost_constant N K.

Lemma work_bound_pow : forall top_k N K n,
  0 < N -> 1 <= K -> 0 <= top_k -> 0 <= n ->
  0 <= work_bound top_k N K n /\ work_bound top_k N K n ^ N <= work_constant top_k N K * n.
Proof.
  intros top_k N K n N_pos K_pos top_k_nonneg n_nonneg. unfold work_bound, work_constant.
  assert (G_pos := growth_pos N K N_pos).
  assert (C_pos : 1 <= cost_constant N K) by (apply pow_at_least_1; nia).
  destruct (root_spec N (cost_constant N K * n) N_pos ltac:(nia)) as (root_nonneg & below & _).
  split; [nia|].
  rewrite Z.pow_mul_l, <- Z.mul_assoc.
  apply Z.mul_le_mono_nonneg_l; [apply Z.pow_nonneg; nia | exact below].
Qed.

(** A query that sees [n] keys: besides its window, [O(n^(1/N))]. *)
Theorem query_cost : forall top_k K s (n : segment) work,
  1 <= K -> 0 <= top_k -> standard K (levels s) -> 0 <= window_index s -> 0 <= n ->
  query_work top_k s n work ->
  work <= work_bound top_k (steps_of (levels s)) K n + window_of s.
Proof.
  intros top_k K s n work K_pos top_k_nonneg std w_nonneg n_nonneg is_query.
  set (N := steps_of (levels s)).
  assert (N_pos : 0 < N) by apply steps_of_pos.
  assert (G_pos := growth_pos N K N_pos).
  assert (C_pos : 1 <= cost_constant N K) by (apply pow_at_least_1; nia).
  destruct (root_spec N (cost_constant N K * n) N_pos ltac:(nia)) as (root_nonneg & _ & _).
  assert (cheap := path_cost K (levels s) (window_index s) n K_pos std w_nonneg n_nonneg).
  cbv zeta in cheap. fold N in cheap. unfold work_bound.
  set (X := root N (cost_constant N K * n)) in *.
  apply (query_work_at_most top_k s n X (repeat X (length (levels s)))) in is_query.
  - rewrite total_repeat in is_query. replace (N - 1) with (Z.of_nat (length (levels s)))
      by (unfold N, steps_of; lia). lia.
  - exact top_k_nonneg.
  - apply Forall_cons; [exact root_nonneg|]. apply Forall_forall. intros x x_in.
    apply repeat_spec in x_in. subst x. exact root_nonneg.
  - apply repeat_length.
  - exact cheap.
Qed.

Lemma work_bound_mono : forall top_k N K n n',
  0 < N -> 1 <= K -> 0 <= top_k -> 0 <= n <= n' ->
  work_bound top_k N K n <= work_bound top_k N K n'.
Proof.
  intros top_k N K n n' N_pos K_pos top_k_nonneg order. unfold work_bound.
  assert (G_pos := growth_pos N K N_pos).
  assert (C_pos : 1 <= cost_constant N K) by (apply pow_at_least_1; nia).
  apply Z.mul_le_mono_nonneg_l; [nia|].
  destruct (root_spec N (cost_constant N K * n) N_pos ltac:(nia)) as (root_nonneg & below & _).
  apply root_ge_iff; [exact N_pos | nia | exact root_nonneg | nia].
Qed.

(** The queries [start, ..., start + len - 1] of a context that begins at [start]: what the window
    costs, and beyond that [O(len^(1 + 1/N))].  [work t] is the work of query [t], whichever spans
    its scores choose. *)
Theorem context_cost : forall top_k K s start len work,
  1 <= K -> 0 <= top_k -> standard K (levels s) -> 0 <= window_index s -> 0 <= len ->
  (forall t, start <= t < start + len -> query_work top_k s (seen start t) (work t)) ->
  let N := steps_of (levels s) in
  exists beyond_window,
    total (map work (interval start (start + len))) <= beyond_window + len * window_of s /\
    0 <= beyond_window /\
    beyond_window ^ N <= work_constant top_k N K * len ^ (N + 1).
Proof.
  intros top_k K s start len work K_pos top_k_nonneg std w_nonneg len_nonneg works N.
  assert (N_pos : 0 < N) by apply steps_of_pos.
  destruct (work_bound_pow top_k N K len) as [bound_nonneg bound_pow]; try assumption.
  exists (len * work_bound top_k N K len). split; [|split].
  - rewrite <- Z.mul_add_distr_l.
    assert (queries : count (interval start (start + len)) = len)
      by (rewrite count_interval; lia).
    rewrite <- queries at 2. apply total_at_most.
    intros t t_in. apply in_interval in t_in. specialize (works t t_in).
    apply Z.le_trans with (work_bound top_k N K (t + 1 - start) + window_of s).
    + apply (query_cost top_k K s (seen start t)); try assumption. cbn [held seen]. lia.
    + apply Z.add_le_mono_r, work_bound_mono; lia.
  - apply Z.mul_nonneg_nonneg; assumption.
  - rewrite Z.pow_mul_l, Z.pow_add_r, Z.pow_1_r by lia.
    rewrite (Z.mul_comm (len ^ N) len), Z.mul_assoc, (Z.mul_comm (len ^ N)).
    apply Z.mul_le_mono_nonneg_r; [apply Z.pow_nonneg; exact len_nonneg | exact bound_pow].
Qed.
