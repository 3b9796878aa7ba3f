(** * No scheme does with less work than [N n^(1/N)] (SPEC 2.5.5)

    Counting and nothing else: [N] steps of at most [c_1, ..., c_N] choices end in at most
    [c_1 ... c_N] keys, whatever the positions and however a step's choices depend on the steps
    before.  By the mean inequality [n] keys need [(c_1 + ... + c_N)^N >= N^N n]. *)

From Coq Require Import ZArith List Lia FinFun.
From Multistep Require Import Schedule Causality AmGm.
Import ListNotations.
Open Scope Z_scope.

(** ** Schemes

    A scheme is anything that chooses step by step.  Its [state] is what the choices so far have
    led to: a segment, or simply the list of these choices.  [offered] are the states that the next
    step can choose from, and after the last step [key] is the key found. *)

Fixpoint reaches {state : Type} (offered : state -> list state) (key : state -> Z)
    (steps : nat) (from : state) (j : Z) : Prop :=
  match steps with
  | O => key from = j
  | S k => exists next, In next (offered from) /\ reaches offered key k next j
  end.

(** [offers_at_most offered cs from]: from this state the next step offers at most the first of
    [cs], and the one after it, whatever was chosen, at most the second, and so on. *)
Fixpoint offers_at_most {state : Type} (offered : state -> list state)
    (cs : list Z) (from : state) : Prop :=
  match cs with
  | [] => True
  | c :: rest =>
      count (offered from) <= c /\
      forall next, In next (offered from) -> offers_at_most offered rest next
  end.

(** ** Counting *)

(** All keys within reach, as a list. *)
Fixpoint keys {state : Type} (offered : state -> list state) (key : state -> Z)
    (steps : nat) (from : state) : list Z :=
  match steps with
  | O => [key from]
  | S k => flat_map (keys offered key k) (offered from)
  end.

Lemma reaches_is_in_keys : forall state offered key steps (from : state) j,
  reaches offered key steps from j <-> In j (keys offered key steps from).
Proof.
  intros state offered key steps. induction steps as [|steps IH]; intros from j; cbn [reaches keys].
  - cbn [In]. tauto.
  - rewrite in_flat_map. split; intros (next & chosen & found); exists next; split;
      try apply IH; assumption.
Qed.

Lemma flat_map_count : forall (A B : Type) (f : A -> list B) (xs : list A) bound,
  0 <= bound -> (forall x, In x xs -> count (f x) <= bound) ->
  count (flat_map f xs) <= count xs * bound.
Proof.
  intros A B f xs bound bound_nonneg each. induction xs as [|x xs IH]; [cbn; lia|].
  rewrite count_cons. cbn [flat_map].
  assert (append : count (f x ++ flat_map f xs) = count (f x) + count (flat_map f xs))
    by (unfold count; rewrite app_length; lia).
  assert (head : count (f x) <= bound) by (apply each; left; reflexivity).
  assert (tail : count (flat_map f xs) <= count xs * bound)
    by (apply IH; intros y y_in; apply each; right; exact y_in).
  lia.
Qed.

(** Each state that step 1 offers leads to at most [c_2 ... c_N] keys, and there are at most [c_1]
    of them. *)
Lemma keys_at_most_product : forall state offered key cs (from : state),
  nonnegative cs -> offers_at_most offered cs from ->
  count (keys offered key (length cs) from) <= product cs.
Proof.
  intros state offered key cs.
  induction cs as [|c rest IH]; intros from cs_nonneg bounded; [cbn; lia|].
  apply Forall_cons_iff in cs_nonneg. destruct cs_nonneg as [c_nonneg rest_nonneg].
  destruct bounded as [few rest_bounded].
  cbn [length keys product fold_right]. fold (product rest).
  assert (rest_product : 0 <= product rest) by (apply product_nonneg; exact rest_nonneg).
  apply Z.le_trans with (count (offered from) * product rest).
  - apply flat_map_count; [exact rest_product|].
    intros next chosen. apply IH; [exact rest_nonneg | exact (rest_bounded next chosen)].
  - apply Z.mul_le_mono_nonneg_r; assumption.
Qed.

(** The integers of [[low, high)]. *)
Definition interval (low high : Z) : list Z :=
  map (fun k => low + Z.of_nat k) (seq 0 (Z.to_nat (high - low))).

Lemma in_interval : forall low high x, In x (interval low high) <-> low <= x < high.
Proof.
  intros low high x. unfold interval. rewrite in_map_iff. split.
  - intros (k & <- & k_in). apply in_seq in k_in. lia.
  - intros range. exists (Z.to_nat (x - low)). split; [lia|]. apply in_seq. lia.
Qed.

Lemma count_interval : forall low high, count (interval low high) = Z.max 0 (high - low).
Proof.
  intros low high. unfold count, interval. rewrite map_length, seq_length. lia.
Qed.

Lemma interval_distinct : forall low high, NoDup (interval low high).
Proof.
  intros low high. unfold interval.
  apply Injective_map_NoDup; [intros k k' same; lia | apply seq_NoDup].
Qed.

(** The pigeonhole: a list that holds all of [[low, high)] is at least as long. *)
Lemma interval_needs_room : forall low high xs,
  (forall j, low <= j < high -> In j xs) -> high - low <= count xs.
Proof.
  intros low high xs all_in.
  assert (room : (length (interval low high) <= length xs)%nat).
  { apply NoDup_incl_length; [apply interval_distinct|].
    intros j j_in. apply all_in, in_interval, j_in. }
  pose proof (count_interval low high) as counted. unfold count in *. lia.
Qed.

(** Distinct keys that can be reached, whichever they are, are no more than the product. *)
Theorem distinct_at_most_product : forall state offered key cs (from : state) js,
  nonnegative cs -> offers_at_most offered cs from ->
  NoDup js -> (forall j, In j js -> reaches offered key (length cs) from j) ->
  count js <= product cs.
Proof.
  intros state offered key cs from js cs_nonneg bounded distinct all_reached.
  apply Z.le_trans with (count (keys offered key (length cs) from));
    [| apply keys_at_most_product; assumption].
  unfold count. apply inj_le, NoDup_incl_length; [exact distinct |].
  intros j j_in. apply reaches_is_in_keys, all_reached, j_in.
Qed.

Theorem reached_at_most_product : forall state offered key cs (from : state) low high,
  nonnegative cs -> offers_at_most offered cs from ->
  (forall j, low <= j < high -> reaches offered key (length cs) from j) ->
  high - low <= product cs.
Proof.
  intros state offered key cs from low high cs_nonneg bounded all_reached.
  apply Z.le_trans with (count (keys offered key (length cs) from)).
  - apply interval_needs_room. intros j range. apply reaches_is_in_keys, all_reached, range.
  - apply keys_at_most_product; assumption.
Qed.

Lemma product_bound_to_total_bound : forall cs n,
  nonnegative cs -> n <= product cs -> count cs ^ count cs * n <= total cs ^ count cs.
Proof.
  intros cs n cs_nonneg few.
  apply Z.le_trans with (count cs ^ count cs * product cs); [|apply mean_inequality, cs_nonneg].
  apply Z.mul_le_mono_nonneg_l; [apply Z.pow_nonneg, count_nonneg | exact few].
Qed.

(** The lower bound: a scheme of [N = count cs] steps that excludes none of [n] keys. *)
Theorem lower_bound : forall state offered key cs (from : state) n,
  nonnegative cs -> offers_at_most offered cs from ->
  (forall j, 0 <= j < n -> reaches offered key (length cs) from j) ->
  count cs ^ count cs * n <= total cs ^ count cs.
Proof.
  intros state offered key cs from n cs_nonneg bounded all_reached.
  apply product_bound_to_total_bound; [exact cs_nonneg|].
  pose proof (reached_at_most_product _ offered key cs from 0 n cs_nonneg bounded all_reached). lia.
Qed.

(** The other way round: [n] keys are more than the product, so one of them is excluded, and going
    through the keys one by one finds it. *)
Theorem too_few_choices_exclude : forall state offered key cs (from : state) n,
  nonnegative cs -> offers_at_most offered cs from -> product cs < n ->
  exists j, 0 <= j < n /\ ~ reaches offered key (length cs) from j.
Proof.
  intros state offered key cs from n cs_nonneg bounded too_few.
  set (found := keys offered key (length cs) from).
  destruct (Forall_Exists_dec (fun j => In j found) (fun j => in_dec Z.eq_dec j found)
              (interval 0 n)) as [all_in | some_out].
  - rewrite Forall_forall in all_in.
    assert (room : n - 0 <= count found)
      by (apply interval_needs_room; intros j range; apply all_in, in_interval, range).
    pose proof (keys_at_most_product _ offered key cs from cs_nonneg bounded) as few.
    fold found in few. lia.
  - apply Exists_exists in some_out. destruct some_out as (j & j_in & out).
    exists j. split; [apply in_interval, j_in|].
    intros reached. apply out, reaches_is_in_keys, reached.
Qed.

(** ** A schedule is a scheme

    While levels remain a state is a segment, of which distance [newest] from the query is the
    newest key; the last step chooses a distance inside the final span. *)

Inductive place :=
| Searching (w : Z) (ls : list level) (n : segment) (newest : Z)
| Found (distance : Z).

(** The stripes that a level searches in a segment. *)
Definition searched_stripes (w M : Z) (l : level) (n : segment) : list Z :=
  interval (first_stripe w l) (last_searched w M l n + 1).

(** How many anchors it scores there. *)
Definition anchor_count (w M : Z) (l : level) (n : segment) : Z :=
  Z.max 0 (last_searched w M l n - first_stripe w l + 1).

Definition places_after (p : place) : list place :=
  match p with
  | Searching w (l :: rest) n newest =>
      map (fun i => let s := span_of w (steps_of (l :: rest)) l n i in
                    Searching 0 rest (segment_of w (steps_of (l :: rest)) l n i) (newest + near s))
          (searched_stripes w (steps_of (l :: rest)) l n)
  | Searching _ [] n newest => map Found (interval newest (newest + n))
  | Found _ => []
  end.

Definition distance_of (p : place) : Z :=
  match p with Searching _ _ _ newest => newest | Found d => d end.

(** On every path the levels score at most [c_1, c_2, ...] anchors of a segment, and the final spans
    hold at most [c_N] keys. *)
Fixpoint costs_at_most (w : Z) (ls : list level) (n : segment) (cs : list Z) : Prop :=
  match ls, cs with
  | [], [c] => n <= c
  | l :: rest, c :: cs' =>
      anchor_count w (steps_of ls) l n <= c /\
      forall i, is_stripe w (steps_of ls) l n i ->
        costs_at_most 0 rest (segment_of w (steps_of ls) l n i) cs'
  | _, _ => False
  end.

Lemma in_searched_stripes : forall w M l (n : segment) i,
  In i (searched_stripes w M l n) <-> is_stripe w M l n i.
Proof. intros w M l n i. unfold searched_stripes, is_stripe. rewrite in_interval. lia. Qed.

Lemma count_map : forall (A B : Type) (f : A -> B) xs, count (map f xs) = count xs.
Proof. intros A B f xs. unfold count. rewrite map_length. reflexivity. Qed.

Lemma count_searched_stripes : forall w M l (n : segment),
  count (searched_stripes w M l n) = anchor_count w M l n.
Proof. intros w M l n. unfold searched_stripes, anchor_count. rewrite count_interval. lia. Qed.

Lemma path_is_choice : forall ls w (n : segment) path newest d,
  leads w ls n path d ->
  reaches places_after distance_of (S (length ls)) (Searching w ls n newest) (newest + d).
Proof.
  intros ls. induction ls as [|l rest IH]; intros w n path newest d led.
  - destruct path as [|i path']; [|destruct led]. cbn [leads] in led.
    exists (Found (newest + d)). split; [|reflexivity].
    cbn. apply in_map, in_interval. lia.
  - destruct path as [|i path']; [destruct led|]. cbn [leads] in led.
    destruct led as (searched & _ & led).
    set (s := span_of w (steps_of (l :: rest)) l n i) in *.
    exists (Searching 0 rest (segment_of w (steps_of (l :: rest)) l n i) (newest + near s)). split.
    + cbn [places_after].
      apply in_map_iff. exists i. split; [reflexivity | apply in_searched_stripes, searched].
    + replace (newest + d) with (newest + near s + (d - near s)) by lia.
      apply IH with path'. exact led.
Qed.

Lemma costs_bound_offers : forall ls w (n : segment) newest cs,
  nonnegative cs -> costs_at_most w ls n cs ->
  offers_at_most places_after cs (Searching w ls n newest).
Proof.
  intros ls. induction ls as [|l rest IH]; intros w n newest cs cs_nonneg cheap.
  - destruct cs as [|c [|c' cs']]; [destruct cheap | | destruct cheap].
    cbn [costs_at_most] in cheap.
    apply Forall_inv in cs_nonneg.
    cbn [offers_at_most places_after].
    rewrite count_map, count_interval. split; [lia | trivial].
  - destruct cs as [|c cs']; [destruct cheap|]. cbn [costs_at_most] in cheap.
    destruct cheap as [few rest_cheap].
    apply Forall_cons_iff in cs_nonneg. destruct cs_nonneg as [_ cs'_nonneg].
    cbn [offers_at_most places_after].
    rewrite count_map, count_searched_stripes. split; [exact few|].
    intros next next_in. apply in_map_iff in next_in. destruct next_in as (i & <- & i_in).
    apply IH; [exact cs'_nonneg | apply rest_cheap, in_searched_stripes, i_in].
Qed.

(** Every schedule whose paths lead to all distances of [[low, n)] pays for them: [low = 0] where
    there is no window, and [low] is its size where there is one. *)
Theorem schedule_reaches_at_most_product : forall w ls (n : segment) cs low,
  nonnegative cs -> length cs = S (length ls) -> costs_at_most w ls n cs ->
  (forall d, low <= d < n -> exists path, leads w ls n path d) ->
  n - low <= product cs.
Proof.
  intros w ls n cs low cs_nonneg steps cheap all_led.
  apply (reached_at_most_product _ places_after distance_of cs (Searching w ls n 0)).
  - exact cs_nonneg.
  - apply costs_bound_offers; assumption.
  - intros d range. destruct (all_led d range) as [path led].
    rewrite steps. apply (path_is_choice ls w n path 0 d led).
Qed.

Lemma window_of_nonneg : forall s, good s -> 0 <= window_of s.
Proof.
  intros [ls w] [ls_good w_nonneg]. cbn [levels window_index] in *.
  apply (first_window_nonneg ls w); assumption.
Qed.

(** The schedules of this project: what the window does not have, the paths must lead to. *)
Theorem schedule_product_bound : forall s start len cs,
  good s -> covered s start len ->
  nonnegative cs -> length cs = S (length (levels s)) ->
  costs_at_most (window_index s) (levels s) (seen start (len - 1)) cs ->
  len - start - window_of s <= product cs.
Proof.
  intros s start len cs s_good all_covered cs_nonneg steps cheap.
  replace (len - start) with (held (seen start (len - 1))) by (cbn [held seen]; lia).
  replace (len - start) with (held (seen start (len - 1))) by (cbn [held seen]; lia).
  apply schedule_reaches_at_most_product with (1 := cs_nonneg) (2 := steps) (3 := cheap).
  intros d range. cbn [held seen] in range.
  pose proof (window_of_nonneg s s_good) as window_nonneg.
  destruct (all_covered (len - 1) (len - 1 - d)) as [windowed | led]; try lia.
  replace (len - 1 - (len - 1 - d)) with d in led by lia. exact led.
Qed.

Theorem schedule_lower_bound : forall s start len cs,
  good s -> covered s start len ->
  nonnegative cs -> length cs = S (length (levels s)) ->
  costs_at_most (window_index s) (levels s) (seen start (len - 1)) cs ->
  count cs ^ count cs * (len - start - window_of s) <= total cs ^ count cs.
Proof.
  intros s start len cs s_good all_covered cs_nonneg steps cheap.
  apply product_bound_to_total_bound; [exact cs_nonneg|].
  now apply schedule_product_bound.
Qed.
