(** * Which anchors dot products can choose (SPEC 2.5.11)

    A pattern that reaches every key is of use only where scores can choose the path there.  Among
    vectors of one length each scores best for itself as the query, as the square of a difference is
    not negative; so any path can be chosen, level by level.  What lies in the middle of others
    never scores better than all of them, whatever the query. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule AmGm.
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
  0 < total (map fst others) -> Forall (fun one => 0 <= fst one) others ->
  (forall k, (k < D)%nat ->
     total (map fst others) * middle k = total (map (fun one => fst one * snd one k) others)) ->
  exists one, In one others /\ dot D q middle <= dot D q (snd one).
Proof.
  intros D q middle others weighty nonneg coordinates.
  assert (mean : is_mean D middle others) by now split.
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
    { clear weighty coordinates sum some none. induction others as [|one others IH];
        cbn [map total fold_right]; [lia|].
      fold (total (map fst others)).
      fold (total (map (fun one => fst one * dot D q (snd one)) others)).
      apply Forall_cons_iff in nonneg. apply Forall_cons_iff in below.
      destruct nonneg as [one_nonneg rest_nonneg]. destruct below as [one_below rest_below].
      specialize (IH rest_nonneg rest_below). nia. }
    nia.
Qed.

(** ** Paths *)

(** With one routing query a level, every choice of the path is one of the best. *)
Fixpoint best (D : nat) (vector : Z -> nat -> Z) (w : Z) (ls : list level) (n : segment)
    (path : list Z) (queries : list (nat -> Z)) : Prop :=
  match ls, path, queries with
  | [], [], [] => True
  | l :: rest, i :: path', q :: queries' =>
      let vector_of i := vector (ends n - 1 - anchor w (steps_of ls) l n i) in
      (forall other, is_stripe w (steps_of ls) l n other ->
         dot D q (vector_of other) <= dot D q (vector_of i) /\
         (dot D q (vector_of other) = dot D q (vector_of i) ->
          forall c, (c < D)%nat -> vector_of i c = vector_of other c)) /\
      best D vector 0 rest (segment_of w (steps_of ls) l n i) path' queries'
  | _, _, _ => False
  end.

(** The queries are the vectors of the path's own anchors. *)
Theorem every_path_can_be_chosen : forall D vector square,
  (forall key, dot D (vector key) (vector key) = square) ->
  forall ls w (n : segment) path d,
  leads w ls n path d -> exists queries, best D vector w ls n path queries.
Proof.
  intros D vector square same ls.
  induction ls as [| l rest IH]; intros w n [| i path] d led; cbn [leads] in led; try contradiction.
  - now exists [].
  - destruct led as (_ & _ & led). apply IH in led. destruct led as [queries chosen].
    exists (vector (ends n - 1 - anchor w (steps_of (l :: rest)) l n i) :: queries).
    split; [| exact chosen]. intros other searched.
    apply own_query_scores_best. now rewrite !same.
Qed.

Corollary every_key_can_be_chosen : forall D vector square s start stop,
  (forall key, dot D (vector key) (vector key) = square) ->
  covered s start stop ->
  forall t j, start <= j <= t -> t < stop -> window_of s <= t - j ->
  exists path queries,
    leads (window_index s) (levels s) (seen start t) path (t - j) /\
    best D vector (window_index s) (levels s) (seen start t) path queries.
Proof.
  intros D vector square s start stop same all t j range inside outside.
  destruct (all t j range inside) as [windowed | [path led]]; [lia |].
  destruct (every_path_can_be_chosen D vector square same _ _ _ _ _ led) as [queries chosen].
  now exists path, queries.
Qed.
