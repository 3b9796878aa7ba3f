(** * A checker of span lists that is proved right

    What [multistep verify --spans] decides for anybody's kernel: of each query in a list of final
    spans, which eligible keys are in none of its spans.  All such pairs are listed, in order, so
    that the first of them and their number are known. *)

From Coq Require Import ZArith List Lia Bool Sorted.
From Multistep Require Import Schedule SpanLists.
Import ListNotations.
Open Scope Z_scope.

(** A row of the list: a query and the keys [[near, far)] of one of its spans. *)
Definition row : Type := Z * span.

Definition spans_of_query (rows : list row) (t : Z) : list span :=
  map snd (filter (fun r => fst r =? t) rows).

(** The keys of [[start, t]] that no span of the query [t] holds; none where [t] is not listed. *)
Definition excluded_keys (rows : list row) (start t : Z) : list Z :=
  match spans_of_query rows t with
  | [] => []
  | spans => filter (fun j => negb (existsb (holds j) spans))
                    (range start (Z.to_nat (t + 1 - start)))
  end.

Definition excluded_pairs (rows : list row) (start len : Z) : list (Z * Z) :=
  flat_map (fun t => map (pair t) (excluded_keys rows start t))
           (range start (Z.to_nat (len - start))).

(** ** Which pairs are listed *)

Lemma in_spans_of_query : forall rows t s, In s (spans_of_query rows t) <-> In (t, s) rows.
Proof.
  intros rows t s. unfold spans_of_query. rewrite in_map_iff. split.
  - intros ((t', s') & same & member). apply filter_In in member. destruct member as [member here].
    cbn [fst snd] in *. apply Z.eqb_eq in here. now subst.
  - intros member. exists (t, s). split; [reflexivity |]. apply filter_In. cbn [fst].
    split; [exact member | apply Z.eqb_refl].
Qed.

Lemma existsb_holds : forall spans j, existsb (holds j) spans = true <-> covers spans j.
Proof.
  intros spans j. rewrite existsb_exists. unfold covers. split; intros (s & member & held);
    exists s; (split; [exact member |]); now apply holds_within.
Qed.

Lemma in_excluded_keys : forall rows start t j,
  In j (excluded_keys rows start t) <->
  start <= j <= t /\ spans_of_query rows t <> [] /\ ~ covers (spans_of_query rows t) j.
Proof.
  intros rows start t j. unfold excluded_keys.
  destruct (spans_of_query rows t) as [| s spans].
  - cbn [In]. intuition congruence.
  - rewrite filter_In, in_range, negb_true_iff, <- existsb_holds.
    destruct (existsb (holds j) (s :: spans)); split; intros facts; repeat split; try discriminate;
      try tauto; try lia; destruct facts as (inside & rest); try (destruct rest; congruence); lia.
Qed.

Theorem in_excluded_pairs : forall rows start len t j,
  In (t, j) (excluded_pairs rows start len) <->
  start <= j <= t /\ t < len /\ (exists s, In (t, s) rows) /\
  ~ exists s, In (t, s) rows /\ within j s.
Proof.
  intros rows start len t j. unfold excluded_pairs. rewrite in_flat_map.
  assert (listed : spans_of_query rows t <> [] <-> exists s, In (t, s) rows).
  { split.
    - destruct (spans_of_query rows t) as [| s spans] eqn:here; [congruence |]. intros _.
      exists s. apply in_spans_of_query. rewrite here. now left.
    - intros (s & member) none. apply in_spans_of_query in member. now rewrite none in member. }
  assert (held : covers (spans_of_query rows t) j <-> exists s, In (t, s) rows /\ within j s).
  { unfold covers. split; intros (s & member & inside); exists s;
      (split; [now apply in_spans_of_query | exact inside]). }
  rewrite <- listed, <- held. split.
  - intros (t' & in_range_t & member). apply in_map_iff in member.
    destruct member as (j' & same & member). injection same as -> ->.
    apply in_range in in_range_t. apply in_excluded_keys in member. intuition lia.
  - intros (inside & below & rest). exists t. split; [apply in_range; lia |].
    apply in_map, in_excluded_keys. tauto.
Qed.

(** ** In which order: smaller query first, then smaller key, none twice *)

Definition before (a b : Z * Z) : Prop := fst a < fst b \/ fst a = fst b /\ snd a < snd b.

Lemma range_sorted : forall k a, StronglySorted Z.lt (range a k).
Proof.
  induction k as [| k IH]; intros a; cbn [range]; constructor; [apply IH |].
  apply Forall_forall. intros x member. apply in_range in member. lia.
Qed.

Lemma filter_sorted : forall (f : Z -> bool) l,
  StronglySorted Z.lt l -> StronglySorted Z.lt (filter f l).
Proof.
  intros f l sorted. induction sorted as [| x l sorted IH after]; cbn [filter]; [constructor |].
  destruct (f x); [| exact IH]. constructor; [exact IH |].
  apply Forall_forall. intros y member. apply filter_In in member.
  now apply (proj1 (Forall_forall _ _) after).
Qed.

Lemma excluded_keys_sorted : forall rows start t, StronglySorted Z.lt (excluded_keys rows start t).
Proof.
  intros rows start t. unfold excluded_keys.
  destruct (spans_of_query rows t); [constructor | apply filter_sorted, range_sorted].
Qed.

Lemma map_pair_sorted : forall t l, StronglySorted Z.lt l -> StronglySorted before (map (pair t) l).
Proof.
  intros t l sorted.
  induction sorted as [| x l sorted IH after]; cbn [map]; constructor; [exact IH |].
  apply Forall_map. eapply Forall_impl; [| exact after]. intros y less. right. cbn. lia.
Qed.

Lemma app_sorted : forall l m, StronglySorted before l -> StronglySorted before m ->
  (forall a b, In a l -> In b m -> before a b) -> StronglySorted before (l ++ m).
Proof.
  intros l m l_sorted m_sorted. induction l_sorted as [| x l l_sorted IH after]; intros between;
    cbn [app]; [exact m_sorted |].
  constructor.
  - apply IH. intros a b in_l. apply between. now right.
  - apply Forall_app. split; [exact after |].
    apply Forall_forall. intros b in_m. apply between; [now left | exact in_m].
Qed.

Theorem excluded_pairs_sorted : forall rows start len,
  StronglySorted before (excluded_pairs rows start len).
Proof.
  intros rows start len. unfold excluded_pairs.
  generalize (range_sorted (Z.to_nat (len - start)) start). intros sorted.
  induction sorted as [| t queries sorted IH after]; cbn [flat_map]; [constructor |].
  apply app_sorted; [apply map_pair_sorted, excluded_keys_sorted | exact IH |].
  intros a b in_a in_b. apply in_map_iff in in_a. destruct in_a as (j & <- & _).
  apply in_flat_map in in_b. destruct in_b as (t' & in_t' & in_b).
  apply in_map_iff in in_b. destruct in_b as (j' & <- & _).
  left. cbn [fst]. now apply (proj1 (Forall_forall _ _) after).
Qed.
