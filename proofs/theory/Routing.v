(** * Which anchors dot products can choose (SPEC 2.5.11)

    A pattern that reaches every key is of use only where scores can choose the path there.  Among
    vectors of one length each scores best for itself as the query, as the square of a difference is
    not negative; so any path can be chosen, level by level.  What lies in the middle of others
    never scores better than all of them, whatever the query. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import AmGm.
Import ListNotations.
Open Scope Z_scope.

(** Vectors have [D] coordinates. *)
Definition dot (D : nat) (a b : nat -> Z) : Z := total (map (fun k => a k * b k) (seq 0 D)).

(** The square of a difference. *)
Lemma squares : forall D a b,
  dot D a a + dot D b b - 2 * dot D a b
  = total (map (fun k => (a k - b k) * (a k - b k)) (seq 0 D)).
Proof.
  intros D a b. unfold dot. rewrite <- total_map_times.
  induction (seq 0 D) as [|k ks IH]; cbn [map total fold_right] in *; [reflexivity|].
  unfold total in *. lia.
Qed.

Lemma total_of_squares : forall (d : nat -> Z) ks,
  0 <= total (map (fun k => d k * d k) ks) /\
  (total (map (fun k => d k * d k) ks) = 0 -> forall k, In k ks -> d k = 0).
Proof.
  intros d ks.
  induction ks as [|x ks IH]; cbn [map total fold_right]; [split; [lia | intros _ k []]|].
  fold (total (map (fun k => d k * d k) ks)). destruct IH as [nonneg zeros].
  pose proof (Z.square_nonneg (d x)) as square.
  split; [lia|]. intros none k [<- | among]; [nia | apply zeros; [lia | exact among]].
Qed.

(** Of vectors that are as long as [a] none scores better for [a] than [a] itself, and only [a]
    scores as well. *)
Theorem own_query_scores_best : forall D a b,
  dot D a a = dot D b b ->
  dot D a b <= dot D a a /\
  (dot D a b = dot D a a -> forall k, (k < D)%nat -> a k = b k).
Proof.
  intros D a b same.
  pose proof (total_of_squares (fun k => a k - b k) (seq 0 D)) as [nonneg zeros].
  rewrite <- squares in nonneg, zeros.
  split; [lia|]. intros tied k range.
  assert (no_difference : a k - b k = 0); [| lia].
  apply zeros; [lia|]. apply in_seq. lia.
Qed.

(** [middle] is a mean of the vectors [others] with weights. *)
Definition is_mean (D : nat) (middle : nat -> Z) (others : list (Z * (nat -> Z))) : Prop :=
  0 < total (map fst others) /\
  forall k, (k < D)%nat ->
    total (map fst others) * middle k = total (map (fun one => fst one * snd one k) others).

Lemma dot_of_mean : forall D q middle others,
  is_mean D middle others ->
  total (map fst others) * dot D q middle
  = total (map (fun one => fst one * dot D q (snd one)) others).
Proof.
  intros D q middle others [_ mean]. unfold dot.
  assert (each : forall ks, (forall k, In k ks -> (k < D)%nat) ->
            total (map fst others) * total (map (fun k => q k * middle k) ks)
            = total (map (fun one => fst one * total (map (fun k => q k * snd one k) ks)) others)).
  { intros ks. induction ks as [|k ks IH]; intros range; cbn [map total fold_right].
    - clear. induction others as [|one others IH]; cbn [map total fold_right] in *; [reflexivity|].
      unfold total in *. lia.
    - fold (total (map (fun k => q k * middle k) ks)).
      rewrite Z.mul_add_distr_l, IH by (intros x among; apply range; now right).
      replace (total (map fst others) * (q k * middle k))
        with (q k * (total (map fst others) * middle k)) by ring.
      rewrite mean by (apply range; now left).
      rewrite <- total_map_times, <- total_map_add. f_equal. apply map_ext. intros one.
      unfold total. ring. }
  apply each. intros k among. apply in_seq in among. lia.
Qed.

(** Whatever the query, one of the others scores at least as well. *)
Theorem middle_never_wins_alone : forall D q middle others,
  is_mean D middle others -> Forall (fun one => 0 <= fst one) others ->
  exists one, In one others /\ dot D q middle <= dot D q (snd one).
Proof.
  intros D q middle others mean nonneg.
  pose proof (dot_of_mean D q middle others mean) as sum. destruct mean as [some _].
  set (score := dot D q middle) in *.
  destruct (Exists_dec (fun one => score <= dot D q (snd one)) others
              (fun one => Z_le_dec score (dot D q (snd one)))) as [found | none].
  - apply Exists_exists in found. exact found.
  - exfalso.
    assert (below : Forall (fun one => dot D q (snd one) <= score - 1) others).
    { apply Forall_forall. intros one among. destruct (Z.le_gt_cases score (dot D q (snd one)));
        [| lia]. exfalso. apply none, Exists_exists. now exists one. }
    assert (less : total (map (fun one => fst one * dot D q (snd one)) others)
                   <= total (map fst others) * (score - 1)).
    { clear sum some none. induction others as [|one others IH]; cbn [map total fold_right]; [lia|].
      fold (total (map fst others)).
      fold (total (map (fun one => fst one * dot D q (snd one)) others)).
      apply Forall_cons_iff in nonneg. apply Forall_cons_iff in below.
      destruct nonneg as [one_nonneg rest_nonneg]. destruct below as [one_below rest_below].
      specialize (IH rest_nonneg rest_below). nia. }
    nia.
Qed.
