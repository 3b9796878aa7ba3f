(** * A weighted mean in rounded arithmetic (SPEC 4, 8.3)

    Parts of a softmax are put together as the mean of their outputs by their weights.  In the
    standard model an operation's result is the exact one times [1 + d], [|d| <= u].  Whatever the
    order of the additions, each term of a sum ends up with one such factor for each addition above
    it.  Numerator, denominator and quotient together give each term of the mean [n] factors, some
    of them below the line; and such a product is within [n u / (1 - n u)] of 1. *)

From Coq Require Import Reals List Lra Lia Permutation.
Import ListNotations.
Open Scope R_scope.

Definition rounded (u : R) (j : nat) (x y : R) : Prop :=
  exists f, (1 - u) ^ j <= f <= (1 + u) ^ j /\ y = x * f.

Fixpoint summed (u : R) (depth : nat) (xs : list R) (s : R) : Prop :=
  match depth with
  | O => xs = [s]
  | S below =>
      summed u below xs s \/
      exists ys zs a b, Permutation (ys ++ zs) xs /\ summed u below ys a /\ summed u below zs b /\
        rounded u 1 (a + b) s
  end.

Definition sum (xs : list R) : R := fold_right Rplus 0 xs.

Definition mean (parts : list (R * R)) : R :=
  sum (map (fun p => fst p * snd p) parts) / sum (map fst parts).

Definition gamma (u : R) (n : nat) : R := INR n * u / (1 - INR n * u).

(** ** Factors *)

Lemma one_minus_power : forall u n, 0 <= u <= 1 -> 1 - INR n * u <= (1 - u) ^ n <= 1.
Proof.
  intros u n range. induction n as [| n IH]; [cbn; lra |].
  rewrite S_INR. cbn [pow]. destruct IH as [above below].
  pose proof (Rmult_le_pos u (1 - (1 - u) ^ n) ltac:(lra) ltac:(lra)).
  pose proof (Rmult_le_pos (1 - u) (1 - (1 - u) ^ n) ltac:(lra) ltac:(lra)).
  split; lra.
Qed.

(** [1 + u <= 1 / (1 - u)] *)
Lemma plus_times_minus : forall u n, 0 <= u <= 1 -> 0 <= (1 + u) ^ n * (1 - u) ^ n <= 1.
Proof.
  intros u n range. rewrite <- Rpow_mult_distr.
  replace ((1 + u) * (1 - u)) with (1 - u * u) by ring.
  assert (factor : 0 <= 1 - u * u <= 1) by (split; nra). split; [now apply pow_le |].
  pose proof (pow_incr _ _ n factor) as small. now rewrite pow1 in small.
Qed.

Lemma rounded_more : forall u i j x y z, 0 <= u <= 1 ->
  rounded u i x y -> rounded u j y z -> rounded u (i + j) x z.
Proof.
  intros u i j x y z range (f & f_range & ->) (g & g_range & ->). exists (f * g).
  rewrite !pow_add. pose proof (pow_le (1 - u) i ltac:(lra)).
  pose proof (pow_le (1 - u) j ltac:(lra)).
  split; [| ring]. split; apply Rmult_le_compat; lra.
Qed.

Lemma rounded_less : forall u j x y, 0 <= u <= 1 -> rounded u j x y -> rounded u (S j) x y.
Proof.
  intros u j x y range (f & f_range & ->). exists f. split; [| reflexivity]. cbn [pow].
  pose proof (pow_le (1 - u) j ltac:(lra)). pose proof (pow_le (1 + u) j ltac:(lra)). nra.
Qed.

(** ** Sums *)

Lemma sum_app : forall xs ys, sum (xs ++ ys) = sum xs + sum ys.
Proof. unfold sum. induction xs as [| x xs IH]; intros ys; cbn; [lra |]. rewrite IH. lra. Qed.

Lemma sum_permuted : forall xs ys, Permutation xs ys -> sum xs = sum ys.
Proof. unfold sum. intros xs ys same. induction same; cbn in *; lra. Qed.

(** A sum is the exact one of its terms after as many roundings as it is deep. *)
Lemma terms_are_rounded : forall u depth xs s, 0 <= u <= 1 -> summed u depth xs s ->
  exists ys, Forall2 (rounded u depth) xs ys /\ sum ys = s.
Proof.
  intros u depth.
  induction depth as [| depth IH]; intros xs s range computed; cbn [summed] in computed.
  - subst xs. exists [s]. split; [| cbn; lra]. repeat constructor. exists 1. cbn. lra.
  - destruct computed as [less | (ys & zs & a & b & same & of_ys & of_zs & (f & f_range & ->))].
    + destruct (IH xs s range less) as (ys & terms & total). exists ys. split; [| exact total].
      clear - terms range. induction terms; constructor; [now apply rounded_less | assumption].
    + destruct (IH ys a range of_ys) as (ys' & y_terms & <-).
      destruct (IH zs b range of_zs) as (zs' & z_terms & <-).
      pose proof (Forall2_app y_terms z_terms) as terms.
      destruct (Permutation_Forall2 same terms) as (xs' & same' & x_terms).
      exists (map (fun y => y * f) xs'). split.
      * clear - x_terms f_range range. induction x_terms; cbn [map]; constructor; [| assumption].
        replace (S depth) with (depth + 1)%nat by lia. apply rounded_more with y; [assumption .. |].
        now exists f.
      * rewrite <- sum_app, (sum_permuted _ _ same'). clear. unfold sum.
        induction xs' as [| x xs IH]; cbn in *; lra.
Qed.

(** Terms that are not negative make a sum with a factor of the same range. *)
Lemma sum_is_rounded : forall u j xs ys, Forall (fun x => 0 <= x) xs ->
  Forall2 (rounded u j) xs ys -> (1 - u) ^ j * sum xs <= sum ys <= (1 + u) ^ j * sum xs.
Proof.
  intros u j xs ys signs terms. unfold sum.
  induction terms as [| x y xs ys (f & f_range & ->) _ IH]; cbn [fold_right]; [lra |].
  pose proof (Forall_inv signs) as x_sign. specialize (IH (Forall_inv_tail signs)).
  split; nra.
Qed.

(** ** The mean *)

Lemma factor_is_near : forall u n f, 0 <= u <= 1 -> INR n * u < 1 ->
  (1 - u) ^ n <= f -> f * (1 - u) ^ n <= 1 -> Rabs (f - 1) <= gamma u n.
Proof.
  intros u n f range small above below. pose proof (one_minus_power u n range) as [bernoulli _].
  pose proof (pos_INR n) as n_nonneg. unfold gamma. set (x := INR n * u) in *.
  assert (x_nonneg : 0 <= x) by (unfold x; nra).
  assert (share : x <= x / (1 - x)).
  { apply Rmult_le_reg_r with (1 - x); [lra |]. unfold Rdiv.
    rewrite Rmult_assoc, Rinv_l by lra. nra. }
  apply Rabs_le. split; [lra |].
  apply Rmult_le_reg_r with (1 - x); [lra |].
  unfold Rdiv. rewrite Rmult_assoc, Rinv_l by lra. nra.
Qed.

Lemma scaled_sum_is_near : forall u j c g xs ys,
  (forall f, (1 - u) ^ j <= f <= (1 + u) ^ j -> Rabs (f * c - 1) <= g) ->
  Forall2 (rounded u j) xs ys -> Rabs (sum ys * c - sum xs) <= g * sum (map Rabs xs).
Proof.
  intros u j c g xs ys near terms. unfold sum.
  induction terms as [| x y xs ys (f & f_range & ->) _ IH]; cbn [fold_right map].
  { rewrite Rmult_0_l, Rminus_0_r, Rabs_R0. lra. }
  replace ((x * f + fold_right Rplus 0 ys) * c - (x + fold_right Rplus 0 xs))
    with (x * (f * c - 1) + (fold_right Rplus 0 ys * c - fold_right Rplus 0 xs)) by ring.
  eapply Rle_trans; [apply Rabs_triang |]. rewrite Rabs_mult. specialize (near f f_range).
  pose proof (Rmult_le_compat_l (Rabs x) _ _ (Rabs_pos x) near). lra.
Qed.

Lemma both_rounded : forall u i j xs ys zs, 0 <= u <= 1 ->
  Forall2 (rounded u i) xs ys -> Forall2 (rounded u j) ys zs -> Forall2 (rounded u (i + j)) xs zs.
Proof.
  intros u i j xs ys zs range first. revert zs.
  induction first as [| x y xs ys here _ IH]; intros zs second; inversion second; subst;
    constructor.
  - now apply rounded_more with y.
  - now apply IH.
Qed.

Theorem mean_is_near : forall u j depth parts products weights moment weight out,
  let n := (2 * (j + depth) + 1)%nat in
  0 <= u -> INR n * u < 1 ->
  Forall (fun p => 0 <= fst p) parts -> 0 < sum (map fst parts) ->
  Forall2 (rounded u j) (map (fun p => fst p * snd p) parts) products ->
  Forall2 (rounded u j) (map fst parts) weights ->
  summed u depth products moment -> summed u depth weights weight ->
  rounded u 1 (moment / weight) out ->
  Rabs (out - mean parts) <= gamma u n * mean (map (fun p => (fst p, Rabs (snd p))) parts).
Proof.
  intros u j depth parts products weights moment weight out n u_nonneg small signs some
    rounded_products rounded_weights of_products of_weights (g & g_range & ->).
  assert (range : 0 <= u <= 1).
  { split; [assumption |]. assert (1 <= INR n) by (apply (le_INR 1); lia). nra. }
  destruct (terms_are_rounded u depth _ _ range of_products) as (ys & y_terms & <-).
  destruct (terms_are_rounded u depth _ _ range of_weights) as (ws & w_terms & <-).
  pose proof (both_rounded u j depth _ _ _ range rounded_products y_terms) as moments.
  pose proof (both_rounded u j depth _ _ _ range rounded_weights w_terms) as totals.
  apply sum_is_rounded in totals; [| now apply Forall_map].
  set (k := (j + depth)%nat) in *. set (D := sum (map fst parts)) in *.
  set (s := sum ws) in *. set (x := map (fun p => fst p * snd p) parts) in *.
  pose proof (pow_le (1 + u) k ltac:(lra)) as up.
  assert (u_less : u < 1).
  { destruct (Req_dec u 1) as [-> |]; [| lra].
    assert (1 <= INR n) by (apply (le_INR 1); lia). lra. }
  pose proof (pow_lt (1 - u) k ltac:(lra)) as down.
  assert (s_pos : 0 < s) by nra.
  pose proof (plus_times_minus u k range) as reciprocal.
  assert (n_power : (1 - u) ^ n = (1 - u) ^ k * (1 - u) ^ k * (1 - u)).
  { replace n with (k + k + 1)%nat by lia. rewrite !pow_add, pow_1. ring. }
  assert (near : forall f, (1 - u) ^ k <= f <= (1 + u) ^ k ->
    Rabs (f * (g * D / s) - 1) <= gamma u n).
  { intros f f_range. rewrite !pow_1 in g_range.
    replace (f * (g * D / s)) with (f * g * D / s) by (field; lra).
    apply factor_is_near; try assumption; rewrite n_power.
    - apply Rmult_le_reg_r with s; [assumption |]. unfold Rdiv.
      rewrite (Rmult_assoc (f * g * D)), Rinv_l, Rmult_1_r by lra.
      apply Rle_trans with ((1 - u) ^ k * (1 - u) * D).
      + replace ((1 - u) ^ k * (1 - u) ^ k * (1 - u) * s)
          with ((1 - u) ^ k * (1 - u) * ((1 - u) ^ k * s)) by ring.
        apply Rmult_le_compat_l; [nra |].
        apply Rle_trans with ((1 - u) ^ k * ((1 + u) ^ k * D)); [apply Rmult_le_compat_l; lra |].
        replace ((1 - u) ^ k * ((1 + u) ^ k * D)) with ((1 + u) ^ k * (1 - u) ^ k * D) by ring. nra.
      + apply Rmult_le_compat_r; [lra |]. apply Rmult_le_compat; lra.
    - apply Rmult_le_reg_r with s; [assumption |].
      replace (f * g * D / s * ((1 - u) ^ k * (1 - u) ^ k * (1 - u)) * s)
        with (f * (1 - u) ^ k * (g * (1 - u)) * ((1 - u) ^ k * D)) by (field; lra).
      rewrite Rmult_1_l. apply Rle_trans with ((1 - u) ^ k * D); [| lra].
      rewrite <- (Rmult_1_l ((1 - u) ^ k * D)) at 2. apply Rmult_le_compat_r; [nra |].
      assert (0 <= f * (1 - u) ^ k <= 1) by (split; nra).
      assert (0 <= g * (1 - u) <= 1) by (split; nra). nra. }
  pose proof (scaled_sum_is_near u k (g * D / s) (gamma u n) x ys near moments) as close.
  assert (absolute : sum (map Rabs x) =
    sum (map (fun p => fst p * snd p) (map (fun p => (fst p, Rabs (snd p))) parts))).
  { f_equal. unfold x. rewrite !map_map. apply map_ext_in. intros p p_in. cbn [fst snd].
    rewrite Rabs_mult, (Rabs_right (fst p)); [reflexivity |].
    rewrite Forall_forall in signs. apply Rle_ge. now apply signs. }
  assert (same_weights : map fst (map (fun p => (fst p, Rabs (snd p))) parts) = map fst parts).
  { rewrite map_map. reflexivity. }
  unfold mean. rewrite same_weights, <- absolute. fold x D.
  replace (sum ys / s * g - sum x / D) with ((sum ys * (g * D / s) - sum x) / D) by (field; lra).
  pose proof (Rinv_0_lt_compat _ some) as inverse. unfold Rdiv.
  rewrite Rabs_mult, (Rabs_right (/ D)), <- (Rmult_assoc (gamma u n)) by lra.
  apply Rmult_le_compat_r; [lra | exact close].
Qed.
