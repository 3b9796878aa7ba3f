(* The proved checker and the definitions of Schedule.v as a filter: a question a line, an answer a
   line.

     context LENGTH START WINDOW_INDEX LEVEL...   the first hole as "QUERY KEY", or "covered"
     query T START WINDOW_INDEX LEVEL...          the same of query T alone, its oldest hole
     tree T START WINDOW_INDEX LEVEL...           the window's first key, and each choice of query T
                                                  as LEVEL:STRIPE:ANCHOR:BEGIN:END, in front of
                                                  those inside it
     spans LENGTH START T:BEGIN:END...            the number of excluded pairs of a list of spans,
                                                  and the first, or "0 covered"
     floor I E    ceil C N Q    root N B          floor (I^E), ceil (C N^Q), ceil (N^(1/B))
     part M H                                     c of parts of 2^c keys, M steps left, H keys

   LEVEL: tight:E  power:E:B:F:Q  even  aligned; E, B, F, Q, C: integers or fractions as 20/11.
   All that is trusted here is the reading of a question, the writing of an answer, and the walk over
   the choices of a query; the rest is extracted. *)

open Coverage

let rec positive_of_int n =
  if n = 1 then XH
  else if n land 1 = 1 then XI (positive_of_int (n lsr 1))
  else XO (positive_of_int (n lsr 1))

let rec int_of_positive = function
  | XH -> 1
  | XO p -> 2 * int_of_positive p
  | XI p -> (2 * int_of_positive p) + 1

let int_of_z = function
  | Z0 -> 0
  | Zpos p -> int_of_positive p
  | Zneg p -> -int_of_positive p

(* Only digits, and few enough for an int. *)
let natural text =
  let digit c = '0' <= c && c <= '9' in
  if text = "" || String.length text > 18 || not (String.for_all digit text) then
    failwith (text ^ ": a number is an integer in [0, 10^18)");
  int_of_string ("0u" ^ text)

let z_of_text text =
  match natural text with
  | 0 -> Z0
  | n -> Zpos (positive_of_int n)

let ratio_of_text text =
  match String.split_on_char '/' text with
  | [ num ] -> { num = z_of_text num; den = Zpos XH }
  | [ num; den ] when natural den > 0 -> { num = z_of_text num; den = z_of_text den }
  | _ -> failwith (text ^ ": a rational is an integer or a fraction as 20/11")

let level_of_text text =
  match String.split_on_char ':' text with
  | [ "tight"; e ] -> Tight (ratio_of_text e)
  | [ "power"; e; b; f; q ] ->
    Power (ratio_of_text e, ratio_of_text b, ratio_of_text f, ratio_of_text q)
  | [ "even" ] -> Even
  | [ "aligned" ] -> Aligned
  | _ -> failwith (text ^ ": a level is tight:E, power:E:B:F:Q, even or aligned")

(* The integers first ... last. *)
let rec upto first last = if first > last then [] else first :: upto (first + 1) last

let z_of_int n = z_of_text (string_of_int n)

let rec choices level w levels segment =
  match levels with
  | [] -> []
  | rule :: rest ->
    let steps_left = steps_of levels in
    let key distance = int_of_z segment.ends - 1 - int_of_z distance in
    let choice stripe =
      let i = z_of_int stripe in
      let span = span_of w steps_left rule segment i in
      Printf.sprintf "%d:%d:%d:%d:%d" level stripe
        (key (anchor w steps_left rule segment i))
        (key span.far + 1) (key span.near + 1)
      :: choices (level + 1) Z0 rest (segment_of w steps_left rule segment i)
    in
    upto (int_of_z (first_stripe w rule)) (int_of_z (last_searched w steps_left rule segment))
    |> List.concat_map choice

let hole = function
  | None -> "covered"
  | Some (query, key) -> Printf.sprintf "%d %d" (int_of_z query) (int_of_z key)

let of_schedule question number start schedule =
  let keys = number + 1 - start in
  match question with
  | "context" -> hole (first_hole schedule (z_of_int start) (z_of_int number))
  | "query" ->
    let below = match schedule.levels with [] -> [] | _ :: rest -> table rest O in
    hole (hole_of schedule below (z_of_int start) (z_of_int keys))
  | "tree" ->
    let window = min keys (int_of_z (window_of schedule)) in
    let seen = seen (z_of_int start) (z_of_int number) in
    string_of_int (number + 1 - window) :: choices 1 schedule.window_index schedule.levels seen
    |> String.concat " "
  | _ ->
    failwith (question ^ ": a question is context, query, tree, spans, floor, ceil, root or part")

let row_of_text text =
  match String.split_on_char ':' text with
  | [ query; first; last ] -> (z_of_text query, { near = z_of_text first; far = z_of_text last })
  | _ -> failwith (text ^ ": a span is QUERY:BEGIN:END")

let of_spans length start rows =
  let excluded = excluded_pairs (List.map row_of_text rows) (z_of_text start) (z_of_text length) in
  let first = match excluded with [] -> None | pair :: _ -> Some pair in
  Printf.sprintf "%d %s" (List.length excluded) (hole first)

let answer line =
  match List.filter (( <> ) "") (String.split_on_char ' ' line) with
  | [ "floor"; i; e ] -> string_of_int (int_of_z (floor_power (z_of_text i) (ratio_of_text e)))
  | [ "ceil"; c; n; q ] ->
    string_of_int (int_of_z (ceil_power (ratio_of_text c) (z_of_text n) (ratio_of_text q)))
  | [ "root"; n; b ] -> string_of_int (int_of_z (ceil_root (z_of_text b) (z_of_text n)))
  | [ "part"; m; h ] -> string_of_int (int_of_z (part_exponent (z_of_text m) (z_of_text h)))
  | "spans" :: length :: start :: rows -> of_spans length start rows
  | question :: number :: start :: window_index :: levels ->
    { levels = List.map level_of_text levels; window_index = z_of_text window_index }
    |> of_schedule question (natural number) (natural start)
  | _ -> failwith (line ^ ": no question")

let () =
  try
    while true do
      print_endline (answer (input_line stdin))
    done
  with
  | End_of_file -> ()
  | Failure message ->
    prerr_endline ("checker: " ^ message);
    exit 2
