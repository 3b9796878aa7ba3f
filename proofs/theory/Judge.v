(** * The judge of selections is sound (SPEC 8.2)

    A search keeps, level by level, the best [k] children of what it kept before, by scores of its
    own that may each be off by a bound.  The judge knows the exact scores.  It looks at every path
    that may have been kept and remembers the sure ones, which must have been kept.  The best [k]
    children of sure paths are a threshold: a right search has had them all to choose from, so that
    it keeps nothing that all of them beat by more than the bounds explain.  And a path is sure
    where its parent is and at most [k] paths, itself among them, can come out at its score or
    above.

    Both facts are one count: [k] others that must be better, and the path itself, are more than the
    [k] that are kept. *)

From Coq Require Import ZArith List Lia Bool.
From Multistep Require Import Selection JudgeRule.
Import ListNotations.
Open Scope Z_scope.

(** ** Nothing that is kept is behind, nothing that is sure is lost *)

(** All [k] of [threshold] must come out better than a path that is behind, which leaves it no room
    among the kept. *)
Lemma kept_is_not_behind : forall k score bound own candidates of_sure kept p,
  (forall q, Z.abs (own q - score q) <= bound q) ->
  NoDup of_sure -> incl of_sure candidates ->
  best_of (fun p q => own q <= own p) k candidates kept -> In p kept ->
  behind k score bound (best k score of_sure) p = false.
Proof.
  intros k score bound own candidates of_sure kept p near unique sub (_ & _ & size & better) p_in.
  apply not_true_is_false. unfold behind. rewrite andb_true_iff, Nat.eqb_eq, forallb_forall.
  intros [full beaten].
  destruct (best_is_best k score of_sure unique) as (best_distinct & best_among & _).
  set (winners := best k score of_sure) in *.
  assert (wins : forall y, In y winners -> own p < own y).
  { intros y y_in. specialize (beaten y y_in). apply Z.ltb_lt in beaten.
    pose proof (largest_bounds bound winners y y_in).
    pose proof (near y). pose proof (near p). lia. }
  assert (more : (length (p :: winners) <= length kept)%nat).
  { apply NoDup_incl_length.
    - constructor; [| assumption]. intros itself. specialize (wins p itself). lia.
    - intros y [<- | y_in]; [assumption |].
      destruct (in_dec (list_eq_dec Z.eq_dec) y kept) as [| dropped]; [assumption |].
      specialize (better p y p_in (sub y (best_among y y_in)) dropped).
      specialize (wins y y_in). lia. }
  cbn [length] in more. lia.
Qed.

(** Dropped, it would stand behind [k] kept ones, all of them rivals beside itself. *)
Lemma few_rivals_is_kept : forall k (score bound own : path -> Z) candidates kept still p,
  (forall q, Z.abs (own q - score q) <= bound q) -> NoDup candidates ->
  best_of (fun p q => own q <= own p) k candidates kept -> incl kept still ->
  In p candidates -> In p still ->
  (length (filter (fun q => score p - bound p <=? score q + bound q)%Z still) <= k)%nat ->
  In p kept.
Proof.
  intros k score bound own candidates kept still p near unique selected sub p_in p_still few.
  destruct (in_dec (list_eq_dec Z.eq_dec) p kept) as [| dropped]; [assumption | exfalso].
  pose proof (dropped_means_full _ _ k candidates kept p selected unique p_in dropped) as full.
  destruct selected as (kept_distinct & _ & _ & better).
  assert (more : (length (p :: kept) <=
    length (filter (fun q => score p - bound p <=? score q + bound q)%Z still))%nat).
  { apply NoDup_incl_length; [now constructor |].
    intros q q_in. apply filter_In. rewrite Z.leb_le. destruct q_in as [<- | q_in].
    - split; [assumption |]. pose proof (near p). lia.
    - split; [now apply sub |]. specialize (better q p q_in p_in dropped).
      pose proof (near p). pose proof (near q). lia. }
  cbn [length] in more. lia.
Qed.

Lemma sure_distinct : forall k offers score bound m, (forall p, NoDup (offers p)) ->
  NoDup (sure k offers score bound m).
Proof.
  intros k offers score bound m unique. unfold sure. induction m as [| m IH].
  { constructor; [intros [] | constructor]. }
  cbn [possible_and_sure]. destruct (possible_and_sure k offers score bound m) as [possible of_m].
  cbn [snd] in *. now repeat apply NoDup_filter; apply children_distinct.
Qed.

Lemma kept_distinct : forall k offers own levels kept m,
  right_search k offers own levels kept -> (m <= levels)%nat -> NoDup (kept m).
Proof.
  intros k offers own levels kept m [root step] range. destruct m as [| m].
  - rewrite root. constructor; [intros [] | constructor].
  - now destruct (step m ltac:(lia)).
Qed.

(** Level by level: what is kept is possible, and what is sure is kept. *)
Lemma between : forall k offers score bound own levels kept,
  (forall p, NoDup (offers p)) -> (forall p, Z.abs (own p - score p) <= bound p) ->
  right_search k offers own levels kept -> forall m, (m <= levels)%nat ->
  incl (kept m) (fst (possible_and_sure k offers score bound m)) /\
  incl (sure k offers score bound m) (kept m).
Proof.
  intros k offers score bound own levels kept unique near right m.
  induction m as [| m IH]; intros range.
  { destruct right as [root _]. rewrite root. split; apply incl_refl. }
  destruct (IH ltac:(lia)) as [kept_possible sure_kept].
  pose proof (sure_distinct k offers score bound m unique) as sures.
  pose proof (kept_distinct k offers own levels kept m right ltac:(lia)) as kepts.
  destruct right as [_ step]. specialize (step m ltac:(lia)).
  unfold sure in *. cbn [possible_and_sure].
  destruct (possible_and_sure k offers score bound m) as [possible of_m]. cbn [fst snd] in *.
  set (still := filter _ (flat_map (children offers) possible)).
  pose proof (children_incl offers _ _ sure_kept) as sub.
  pose proof (children_distinct offers _ unique sures) as sure_children.
  assert (kept_still : incl (kept (S m)) still).
  { intros p p_in. apply filter_In. split.
    - apply (children_incl offers _ _ kept_possible). now apply step.
    - apply negb_true_iff.
      now apply (kept_is_not_behind k score bound own _ _ (kept (S m)) p near sure_children sub). }
  split; [exact kept_still |]. intros p p_in. apply filter_In in p_in.
  destruct p_in as [p_in few]. apply Nat.leb_le in few. apply filter_In in p_in.
  destruct p_in as [p_in p_near].
  apply (few_rivals_is_kept k score bound own (flat_map (children offers) (kept m)) _ still p near);
    try assumption.
  - now apply children_distinct.
  - now apply sub.
  - apply filter_In. split; [| assumption].
    apply (children_incl offers _ _ kept_possible), sub, p_in.
Qed.

(** ** What every right search does *)

(** What is kept at a level has kept parents, so that the whole way to it passes. *)
Theorem kept_passes : forall k offers score bound own levels kept,
  (forall p, NoDup (offers p)) -> (forall p, Z.abs (own p - score p) <= bound p) ->
  right_search k offers own levels kept ->
  forall m, (m <= levels)%nat -> forall p, In p (kept m) ->
  length p = m /\ passes k offers score bound p = true.
Proof.
  intros k offers score bound own levels kept unique near right m.
  induction m as [| m IH]; intros range p p_in.
  { destruct right as [root _]. rewrite root in p_in. destruct p_in as [<- | []]. auto. }
  destruct (between _ _ _ _ _ _ _ unique near right m ltac:(lia)) as [_ sure_kept].
  pose proof right as [_ step]. specialize (step m ltac:(lia)).
  assert (not_behind : behind k score bound (threshold k offers score bound m) p = false).
  { apply kept_is_not_behind with
      (own := own) (candidates := flat_map (children offers) (kept m)) (kept := kept (S m));
      try assumption.
    - apply children_distinct; [assumption | now apply sure_distinct].
    - now apply children_incl. }
  apply step, in_flat_map in p_in. destruct p_in as (parent & parent_in & p_in).
  apply in_children in p_in. destruct p_in as (key & -> & offered).
  destruct (IH ltac:(lia) parent parent_in) as [size passed]. cbn [passes length].
  split; [now rewrite size |]. rewrite size, passed, not_behind, !andb_true_r.
  apply existsb_exists. exists key. split; [assumption | apply Z.eqb_refl].
Qed.

Theorem count_is_kept : forall k offers score bound own levels kept m,
  (forall p, NoDup (offers p)) -> (forall p, Z.abs (own p - score p) <= bound p) ->
  right_search k offers own levels kept -> (m < levels)%nat ->
  (length (threshold k offers score bound m) <= length (kept (S m)) <= k)%nat.
Proof.
  intros k offers score bound own levels kept m unique near right range.
  destruct (between _ _ _ _ _ _ _ unique near right m ltac:(lia)) as [_ sure_kept].
  assert (of_sure : NoDup (flat_map (children offers) (sure k offers score bound m))).
  { apply children_distinct; [assumption | now apply sure_distinct]. }
  destruct (best_is_best k score _ of_sure) as (_ & _ & size & _).
  destruct right as [_ step]. destruct (step m range) as (_ & _ & size' & _).
  unfold threshold. rewrite size, size'.
  pose proof (NoDup_incl_length of_sure (children_incl offers _ _ sure_kept)). lia.
Qed.

(** ** The verdict *)

Theorem wrong_is_wrong : forall k offers score bound own levels kept,
  (forall p, NoDup (offers p)) -> (forall p, Z.abs (own p - score p) <= bound p) ->
  right_search k offers own levels kept ->
  (forall m p, (m <= levels)%nat -> passes k offers score bound p = false -> ~ In p (kept m)) /\
  (forall m p, (m <= levels)%nat -> In p (sure k offers score bound m) -> In p (kept m)) /\
  (forall m, (m < levels)%nat ->
     (length (threshold k offers score bound m) <= length (kept (S m)) <= k)%nat).
Proof.
  intros k offers score bound own levels kept unique near right. split; [| split].
  - intros m p range refused p_in.
    destruct (kept_passes _ _ _ _ _ _ _ unique near right m range p p_in) as [_ passed].
    rewrite refused in passed. discriminate.
  - intros m p range. now apply (between _ _ _ _ _ _ _ unique near right m range).
  - intros m. now apply count_is_kept with (own := own) (levels := levels).
Qed.

Theorem right_searches_pass : forall k offers score bound own levels kept,
  (forall p, NoDup (offers p)) -> (forall p, Z.abs (own p - score p) <= bound p) ->
  (0 < levels)%nat -> right_search k offers own levels kept ->
  descending own (kept levels) = true ->
  accepts k offers score bound levels own (kept levels) = true.
Proof.
  intros k offers score bound own levels kept unique near some right order. unfold accepts.
  destruct (between _ _ _ _ _ _ _ unique near right levels ltac:(lia)) as [_ sure_kept].
  pose proof (count_is_kept _ _ _ _ _ _ _ (levels - 1) unique near right ltac:(lia)) as count.
  replace (S (levels - 1)) with levels in count by lia.
  rewrite !andb_true_iff, !forallb_forall, !Nat.leb_le. repeat split; try assumption; try lia.
  - intros p p_in. destruct (kept_passes _ _ _ _ _ _ _ unique near right levels ltac:(lia) p p_in)
      as [size passed]. now rewrite size, Nat.eqb_refl.
  - intros p _. apply Z.leb_le, near.
  - apply distinct_spec. now apply (kept_distinct k offers own levels).
  - intros p p_in. now apply among_spec, sure_kept.
Qed.

(** ** What passes is near the best *)

(** A path that all of a full threshold beat by more than [2 eps] would be behind; where one of it
    does not, what does beat the path so is among the others. *)
Lemma near_the_threshold : forall k score bound of_sure p eps,
  NoDup of_sure -> (0 < k)%nat -> (forall y, In y (p :: of_sure) -> 0 <= bound y <= eps) ->
  behind k score bound (best k score of_sure) p = false ->
  (length (filter (fun y => 2 * eps <? score y - score p)%Z of_sure) < k)%nat.
Proof.
  intros k score bound of_sure p eps unique some small not_behind.
  destruct (best_is_best k score of_sure unique) as (best_distinct & best_among & size & better).
  set (winners := best k score of_sure) in *. set (ahead := filter _ of_sure).
  assert (ahead_distinct : NoDup ahead) by now apply NoDup_filter.
  pose proof (small p (or_introl eq_refl)) as p_small.
  destruct (Exists_dec (fun y => score y - score p <= 2 * eps) winners
              (fun y => Z_le_dec (score y - score p) (2 * eps))) as [found | none].
  - apply Exists_exists in found. destruct found as (y & y_in & y_close).
    assert (more : (length (y :: ahead) <= length winners)%nat); [| cbn [length] in more; lia].
    apply NoDup_incl_length.
    + constructor; [| assumption]. intros far. apply filter_In in far.
      rewrite Z.ltb_lt in far. lia.
    + intros x [<- | x_in]; [assumption |]. apply filter_In in x_in.
      destruct x_in as [x_in x_far]. apply Z.ltb_lt in x_far.
      destruct (in_dec (list_eq_dec Z.eq_dec) x winners) as [| dropped]; [assumption |].
      specialize (better y x y_in x_in dropped). lia.
  - assert (far : forall y, In y winners -> 2 * eps < score y - score p).
    { intros y y_in. destruct (Z.le_gt_cases (score y - score p) (2 * eps)) as [close |]; [| lia].
      exfalso. apply none, Exists_exists. now exists y. }
    destruct (Nat.le_gt_cases k (length of_sure)) as [full | few].
    + exfalso. unfold behind in not_behind. apply andb_false_iff in not_behind.
      destruct not_behind as [short | one]; [apply Nat.eqb_neq in short; lia |].
      apply not_true_iff_false in one. apply one, forallb_forall. intros y y_in. apply Z.ltb_lt.
      assert (largest bound winners <= eps).
      { apply largest_bounded; [lia |]. intros x x_in. apply small. right. now apply best_among. }
      specialize (far y y_in). lia.
    + assert (length ahead <= length of_sure)%nat; [| lia].
      apply NoDup_incl_length; [assumption |]. intros x x_in. now apply filter_In in x_in.
Qed.

Lemma passes_on_the_way : forall k offers score bound later key parent,
  passes k offers score bound (later ++ key :: parent) = true ->
  In key (offers parent) /\
  behind k score bound (threshold k offers score bound (length parent)) (key :: parent) = false.
Proof.
  intros k offers score bound later key parent passed. induction later as [| last later IH].
  - cbn [app passes] in passed. rewrite !andb_true_iff, negb_true_iff in passed.
    destruct passed as [[offered near] _]. apply existsb_exists in offered.
    destruct offered as (same & offered & eq). apply Z.eqb_eq in eq. now subst same.
  - cbn [app passes] in passed. rewrite andb_true_iff in passed. now apply IH.
Qed.

(** The bounds of a path add up over its levels. *)
Theorem accepted_is_near : forall k offers score bound levels own chosen eps later key parent,
  (forall p, NoDup (offers p)) -> (0 < k)%nat ->
  (forall p, 0 <= bound p <= Z.of_nat (length p) * eps) ->
  accepts k offers score bound levels own chosen = true -> In (later ++ key :: parent) chosen ->
  let beats y := 2 * (Z.of_nat (S (length parent)) * eps) <? score y - score (key :: parent) in
  (length (filter beats (flat_map (children offers) (sure k offers score bound (length parent))))
    < k)%nat.
Proof.
  intros k offers score bound levels own chosen eps later key parent unique some small accepted p_in
    beats.
  unfold accepts in accepted. rewrite !andb_true_iff, forallb_forall in accepted.
  destruct accepted as [[[[[[passed _] _] _] _] _] _]. specialize (passed _ p_in).
  rewrite andb_true_iff in passed. destruct passed as [_ passed].
  apply passes_on_the_way in passed. destruct passed as [_ near].
  apply near_the_threshold with (bound := bound) (eps := Z.of_nat (S (length parent)) * eps);
    try assumption.
  - apply children_distinct; [assumption | now apply sure_distinct].
  - assert (of_level : forall m p, In p (sure k offers score bound m) -> length p = m).
    { clear. unfold sure. induction m as [| m IH]; intros p p_in.
      - now destruct p_in as [<- | []].
      - cbn [possible_and_sure] in p_in.
        destruct (possible_and_sure k offers score bound m) as [possible of_m]. cbn [snd] in *.
        apply filter_In in p_in. destruct p_in as [p_in _].
        apply filter_In in p_in. destruct p_in as [p_in _].
        apply in_flat_map in p_in. destruct p_in as (parent & parent_in & p_in).
        apply in_children in p_in. destruct p_in as (key & -> & _). cbn [length].
        now rewrite (IH parent parent_in). }
    intros y [<- | y_in]; [apply small |].
    apply in_flat_map in y_in. destruct y_in as (p & at_level & of_p).
    apply in_children in of_p. destruct of_p as (key' & -> & _).
    specialize (of_level _ _ at_level). specialize (small (key' :: p)). cbn [length] in small.
    now rewrite of_level in small.
Qed.

(** In two steps the root is the only parent, so that the threshold is the oracle's own. *)
Theorem two_steps_regret : forall k offers score bound own chosen eps oracle p,
  (forall p, NoDup (offers p)) -> (forall p, 0 <= bound p <= Z.of_nat (length p) * eps) ->
  accepts k offers score bound 1 own chosen = true -> In p chosen ->
  best_of (fun p q => score q <= score p) k (children offers []) oracle ->
  exists y, In y oracle /\ score y - score p <= 2 * eps.
Proof.
  intros k offers score bound own chosen eps oracle p unique small accepted p_in selected.
  pose proof accepted as verdict. unfold accepts in verdict.
  rewrite !andb_true_iff, forallb_forall, !Nat.leb_le in verdict.
  destruct verdict as [[[[[[passed _] _] _] _] room] _]. specialize (passed p p_in).
  rewrite andb_true_iff, Nat.eqb_eq in passed. destruct passed as [size passed].
  destruct p as [| key [|]]; try discriminate size.
  assert (some : (0 < k)%nat) by (destruct chosen; [destruct p_in | cbn [length] in room; lia]).
  pose proof (accepted_is_near k offers score bound 1 own chosen eps [] key [] unique some small
                accepted p_in) as few.
  unfold sure in few. cbn [possible_and_sure snd flat_map length] in few. rewrite app_nil_r in few.
  destruct (in_dec (list_eq_dec Z.eq_dec) [key] oracle) as [itself | other].
  { exists [key]. split; [assumption |]. specialize (small [key]). cbn [length] in small. lia. }
  destruct (Exists_dec (fun y => score y - score [key] <= 2 * eps) oracle
              (fun y => Z_le_dec (score y - score [key]) (2 * eps))) as [found | none].
  { now apply Exists_exists in found. }
  exfalso. apply (passes_on_the_way _ _ _ _ [] key []) in passed. destruct passed as [offered _].
  assert (candidate : In [key] (children offers [])).
  { apply in_children. now exists key. }
  assert (all_distinct : NoDup (children offers [])).
  { pose proof (children_distinct offers [[]] unique) as one. cbn [flat_map] in one.
    rewrite app_nil_r in one. apply one. constructor; [intros [] | constructor]. }
  pose proof (dropped_means_full _ _ k _ oracle [key] selected all_distinct candidate other)
    as full.
  destruct selected as (oracle_distinct & oracle_among & _).
  assert (more : (length oracle <= length (filter (fun y => 2 * (Z.of_nat 1 * eps) <?
    score y - score [key])%Z (children offers [])))%nat); [| lia].
  apply NoDup_incl_length; [assumption |]. intros y y_in. apply filter_In. rewrite Z.ltb_lt.
  split; [now apply oracle_among |].
  destruct (Z.le_gt_cases (score y - score [key]) (2 * eps)) as [close |]; [| lia].
  exfalso. apply none, Exists_exists. now exists y.
Qed.

(** ** In three steps the oracle's own end may be far ahead

    A near-tie at level 1 flips, and below the other anchor the scores are what they are. *)

Theorem oracle_may_be_far_ahead : forall gap, 0 <= gap ->
  exists offers score own kept oracle p q,
    (forall p, NoDup (offers p)) /\ (forall p, Z.abs (own p - score p) <= 1) /\
    right_search 1 offers own 2 kept /\ right_search 1 offers score 2 oracle /\
    kept 2%nat = [p] /\ oracle 2%nat = [q] /\ gap < score q - score p.
Proof.
  intros gap gap_nonneg.
  exists (fun p => match p with [] => [1; 2] | [a] => [a] | _ => [] end).
  exists (fun p => match p with [1] => 1 | [_; 1] => gap + 1 | _ => 0 end).
  exists (fun p => match p with [2] => 1 | [_; 1] => gap + 1 | _ => 0 end).
  exists (fun m => match m with O => [[]] | 1%nat => [[2]] | _ => [[2; 2]] end).
  exists (fun m => match m with O => [[]] | 1%nat => [[1]] | _ => [[1; 1]] end).
  exists [2; 2], [1; 1].
  assert (one : forall p : path, NoDup [p]).
  { intros p. constructor; [intros [] | constructor]. }
  split; [| split; [| split; [| split; [| split; [reflexivity | split; [reflexivity | lia]]]]]].
  - intros [| a [| b p]]; repeat constructor; cbn; lia.
  - intros [| [| [a | [a | a |] |] | a] [| [| [b | b |] | b] [| c p]]]; cbn; lia.
  - split; [reflexivity |]. intros [| [| m]] range; [| | lia].
    + split; [apply one |]. split; [intros x [<- | []]; cbn; tauto |]. split; [reflexivity |].
      intros x y [<- | []] [<- | [<- | []]] dropped; cbn in *; try lia; tauto.
    + split; [apply one |]. split; [intros x [<- | []]; cbn; tauto |]. split; [reflexivity |].
      intros x y [<- | []] [<- | []] dropped; cbn in *; lia.
  - split; [reflexivity |]. intros [| [| m]] range; [| | lia].
    + split; [apply one |]. split; [intros x [<- | []]; cbn; tauto |]. split; [reflexivity |].
      intros x y [<- | []] [<- | [<- | []]] dropped; cbn in *; try lia; tauto.
    + split; [apply one |]. split; [intros x [<- | []]; cbn; tauto |]. split; [reflexivity |].
      intros x y [<- | []] [<- | []] dropped; cbn in *; lia.
Qed.
