/* parse.y: the grammar, and nothing else: actions only call the makers of the
 * tree. Statement ends come as tokens from the scanner. After a mistake parsing
 * goes on at the next statement end. */
%define api.pure full
%define api.prefix {ps_}
%define api.location.type {Span}
%define parse.error custom
%define parse.lac full
%expect 0
%param {Parser *ps}

%code requires {
#include "ast.h"
}

%code {
#include <string.h>

#define YYLLOC_DEFAULT(Current, Rhs, N)                                       \
  ((Current) = (N) ? span_join(YYRHSLOC(Rhs, 1), YYRHSLOC(Rhs, N))            \
                   : (Span){YYRHSLOC(Rhs, 0).file, YYRHSLOC(Rhs, 0).hi,       \
                            YYRHSLOC(Rhs, 0).hi})

int ps_lex(PS_STYPE *value, Span *loc, Parser *ps);
static void ps_error(Span *loc, Parser *ps, const char *message);

/* The list behind a pointer that is NULL for an empty one. */
#define LIST(T, p) ((p) ? *(p) : (T){0})
#define NAME(text, loc) ((Name){(text), (loc)})
}

%union {
  Literal lit;
  bool flag;
  Name name;
  Expr *expr;
  Stmt *stmt;
  TypeExpr *type;
  ExprVec *exprs;
  StmtVec *stmts;
  NameVec *names;
  NamedVec *nameds;
  Named named;
  ArgVec *args;
  Arg arg;
  SubVec *subs;
  Sub sub;
  DimExprVec *dims;
  DimExpr dim;
  TypeExprVec *types;
  EachVec *eaches;
  Each each;
  TargetVec *targets;
  Target target;
  RuleVec *rules;
  Rule rule;
  ParamVec *params;
  ParamDecl param;
}

%token <lit.s> IDENT "name" STRING "string"
%token <lit.i> INT "integer"
%token <lit.f> FLOAT "number"
%token END 0 "end of file" NEWLINE "end of line"
%token DOTDOT "'..'" ARROW "'->'" EQ "'=='" NE "'!='" LE "'<='" GE "'>='"
%token AND "'and'" OR "'or'" NOT "'not'" TRUE "'true'" FALSE "'false'"
%token IMPORT "'import'" CONST "'const'" OPTION "'option'" MESH "'mesh'"
%token FN "'fn'" ENTRY "'entry'" FROM "'from'" LIKE "'like'" AS "'as'"
%token LET "'let'" PARAM "'param'" STATE "'state'" SET "'set'" NEXT "'next'"
%token YIELD "'yield'" RETURN "'return'" REPORT "'report'" PROBE "'probe'"
%token MINIMIZE "'minimize'" WITH "'with'" RECOMPUTE "'recompute'" WHERE "'where'"
%token IF "'if'" ELSE "'else'" FOR "'for'" IN "'in'" SCAN "'scan'"
%token ALONG "'along'"
%token <lit.s> REVERSE "'reverse'"

%left OR
%left AND
%precedence NOT
%nonassoc EQ NE '<' LE '>' GE
%left '+' '-'
%left '*' '/' '%'
%precedence NEGATIVE

%type <expr> expr arith postfix primary along default maybe_expr
%type <exprs> exprs
%type <stmt> stmt
%type <stmts> block lines otherwise
%type <nameds> nameds with probes
%type <named> named probe
%type <args> args arg_list source_args
%type <arg> arg
%type <name> arg_name
%type <subs> subs places
%type <sub> sub place
%type <type> type
%type <dims> dims dim_list
%type <dim> dim
%type <names> split
%type <types> types result
%type <eaches> eaches
%type <each> each
%type <targets> targets
%type <target> target
%type <rules> rules
%type <rule> rule
%type <params> params param_list inputs input_list
%type <param> param input
%type <lit.s> source
%type <flag> reverse

%%

file: items ;

items:
    %empty
  | items item NEWLINE
  | items error NEWLINE ;

item:
    IMPORT STRING
      { ast_decl(ps, (Decl){.kind = DECL_IMPORT, .span = @$,
                            .name = NAME($2, @2)}); }
  | CONST IDENT '=' expr
      { ast_decl(ps, (Decl){.kind = DECL_CONST, .span = @$, .value = $4,
                            .name = NAME($2, @2)}); }
  | OPTION IDENT '=' expr
      { ast_decl(ps, (Decl){.kind = DECL_OPTION, .span = @$, .value = $4,
                            .name = NAME($2, @2)}); }
  | MESH axes
  | FN IDENT '(' params ')' result block
      { ast_decl(ps, (Decl){.kind = DECL_FN, .span = span_join(@1, @6),
                            .name = NAME($2, @2),
                            .params = LIST(ParamVec, $4),
                            .typed = $6 != NULL,
                            .results = LIST(TypeExprVec, $6),
                            .body = LIST(StmtVec, $7)}); }
  | FN IDENT '(' params ')' '(' params ')' result block
      { ast_decl(ps, (Decl){.kind = DECL_FN, .span = span_join(@1, @9),
                            .name = NAME($2, @2),
                            .params = LIST(ParamVec, $4), .curried = true,
                            .more = LIST(ParamVec, $7),
                            .typed = $9 != NULL,
                            .results = LIST(TypeExprVec, $9),
                            .body = LIST(StmtVec, $10)}); }
  | FN error block
  | ENTRY IDENT '(' inputs ')' block
      { ast_decl(ps, (Decl){.kind = DECL_ENTRY, .span = span_join(@1, @5),
                            .name = NAME($2, @2),
                            .params = LIST(ParamVec, $4),
                            .body = LIST(StmtVec, $6)}); }
  | ENTRY IDENT FOR IDENT IN '{' exprs '}' '(' inputs ')' block
      { ast_decl(ps, (Decl){.kind = DECL_ENTRY, .span = span_join(@1, @11),
                            .name = NAME($2, @2), .size = NAME($4, @4),
                            .sizes = LIST(ExprVec, $7),
                            .params = LIST(ParamVec, $10),
                            .body = LIST(StmtVec, $12)}); }
  | ENTRY error block ;

axes:
    axis
  | axes ',' axis ;

axis:
    IDENT
      { ast_decl(ps, (Decl){.kind = DECL_MESH, .span = @$,
                            .name = NAME($1, @1)}); } ;

/* ---- parameters and types ---- */

params:
    %empty { $$ = NULL; }
  | param_list
  | param_list ',' ;

param_list:
    param { $$ = NULL; AST_PUSH(ps, ParamVec, $$, $1); }
  | param_list ',' param { $$ = $1; AST_PUSH(ps, ParamVec, $$, $3); } ;

param:
    IDENT default
      { $$ = (ParamDecl){.name = NAME($1, @1), .init = $2}; }
  | IDENT ':' type default
      { $$ = (ParamDecl){.name = NAME($1, @1), .type = $3, .init = $4}; } ;

default:
    %empty { $$ = NULL; }
  | '=' expr { $$ = $2; } ;

inputs:
    %empty { $$ = NULL; }
  | input_list
  | input_list ',' ;

input_list:
    input { $$ = NULL; AST_PUSH(ps, ParamVec, $$, $1); }
  | input_list ',' input { $$ = $1; AST_PUSH(ps, ParamVec, $$, $3); } ;

input:
    IDENT ':' type
      { $$ = (ParamDecl){.name = NAME($1, @1), .type = $3}; }
  | IDENT ':' type FROM source source_args
      { $$ = (ParamDecl){.name = NAME($1, @1), .type = $3,
                         .source = NAME($5, @5),
                         .source_args = LIST(ArgVec, $6)}; } ;

source:
    IDENT
  | source '.' IDENT { $$ = sym_fmt(ps->cx, "%s.%s", $1, $3); } ;

source_args:
    %empty { $$ = NULL; }
  | '(' args ')' { $$ = $2; } ;

type:
    IDENT '[' dims ']' { $$ = ast_type(ps, @$, NAME($1, @1), $3, NULL); }
  | IDENT '[' LIKE expr ']' { $$ = ast_type(ps, @$, NAME($1, @1), NULL, $4); } ;

dims:
    %empty { $$ = NULL; }
  | dim_list ;

dim_list:
    dim { $$ = NULL; AST_PUSH(ps, DimExprVec, $$, $1); }
  | dim_list ',' dim { $$ = $1; AST_PUSH(ps, DimExprVec, $$, $3); } ;

dim:
    DOTDOT { $$ = (DimExpr){.span = @$}; }
  | expr { $$ = (DimExpr){.size = $1, .span = @$}; }
  | expr split
      { $$ = (DimExpr){.size = $1, .axes = LIST(NameVec, $2), .span = @$}; } ;

split:
    '@' IDENT { $$ = NULL; AST_PUSH(ps, NameVec, $$, NAME($2, @2)); }
  | split '@' IDENT { $$ = $1; AST_PUSH(ps, NameVec, $$, NAME($3, @3)); } ;

result:
    %empty { $$ = NULL; }
  | ARROW type { $$ = NULL; AST_PUSH(ps, TypeExprVec, $$, $2); }
  | ARROW '(' types ')' { $$ = $3; } ;

types:
    type { $$ = NULL; AST_PUSH(ps, TypeExprVec, $$, $1); }
  | types ',' type { $$ = $1; AST_PUSH(ps, TypeExprVec, $$, $3); } ;

/* ---- statements ---- */

block:
    '{' lines '}' { $$ = $2; }
  | '{' lines stmt '}' { $$ = $2; AST_PUSH(ps, StmtVec, $$, $3); }
  | '{' lines error '}' { $$ = $2; } ;

lines:
    %empty { $$ = NULL; }
  | lines stmt NEWLINE { $$ = $1; AST_PUSH(ps, StmtVec, $$, $2); }
  | lines error NEWLINE { $$ = $1; } ;

stmt:
    LET targets '=' expr
      { $$ = ast_stmt(ps, (Stmt){.kind = ST_LET, .span = @$,
                                 .let = {LIST(TargetVec, $2), $4}}); }
  | PARAM IDENT ':' type '=' expr
      { $$ = ast_stmt(ps, (Stmt){.kind = ST_PARAM, .span = @$,
                                 .slot = {NAME($2, @2), $4, $6}}); }
  | STATE IDENT ':' type default
      { $$ = ast_stmt(ps, (Stmt){.kind = ST_STATE, .span = @$,
                                 .slot = {NAME($2, @2), $4, $5}}); }
  | SET nameds
      { $$ = ast_stmt(ps, (Stmt){.kind = ST_SET, .span = @$,
                                 .named = LIST(NamedVec, $2)}); }
  | NEXT nameds
      { $$ = ast_stmt(ps, (Stmt){.kind = ST_NEXT, .span = @$,
                                 .named = LIST(NamedVec, $2)}); }
  | REPORT nameds
      { $$ = ast_stmt(ps, (Stmt){.kind = ST_REPORT, .span = @$,
                                 .named = LIST(NamedVec, $2)}); }
  | PROBE probes
      { $$ = ast_stmt(ps, (Stmt){.kind = ST_PROBE, .span = @$,
                                 .named = LIST(NamedVec, $2)}); }
  | YIELD exprs
      { $$ = ast_stmt(ps, (Stmt){.kind = ST_YIELD, .span = @$,
                                 .values = LIST(ExprVec, $2)}); }
  | RETURN
      { $$ = ast_stmt(ps, (Stmt){.kind = ST_RETURN, .span = @$}); }
  | RETURN exprs
      { $$ = ast_stmt(ps, (Stmt){.kind = ST_RETURN, .span = @$,
                                 .values = LIST(ExprVec, $2)}); }
  | MINIMIZE expr WITH '{' rules end '}'
      { $$ = ast_stmt(ps, (Stmt){.kind = ST_MINIMIZE, .span = @$,
                                 .minimize = {$2, LIST(RuleVec, $5)}}); }
  | IF arith block otherwise
      { $$ = ast_stmt(ps, (Stmt){.kind = ST_IF, .span = span_join(@1, @2),
                                 .branch = {$2, LIST(StmtVec, $3),
                                            LIST(StmtVec, $4)}}); }
  | IF error block otherwise
      { $$ = ast_stmt(ps, (Stmt){.kind = ST_EXPR, .span = @$,
                                 .expr = ast_error(ps, @$)}); }
  | WHERE arith block
      { $$ = ast_stmt(ps, (Stmt){.kind = ST_WHERE, .span = span_join(@1, @2),
                                 .branch = {.cond = $2,
                                            .yes = LIST(StmtVec, $3)}}); }
  | WHERE error block
      { $$ = ast_stmt(ps, (Stmt){.kind = ST_EXPR, .span = @$,
                                 .expr = ast_error(ps, @$)}); }
  | RECOMPUTE block
      { $$ = ast_stmt(ps, (Stmt){.kind = ST_RECOMPUTE, .span = @1,
                                 .body = LIST(StmtVec, $2)}); }
  | expr
      { $$ = ast_stmt(ps, (Stmt){.kind = ST_EXPR, .span = @$, .expr = $1}); } ;

end:
    %empty
  | NEWLINE ;

otherwise:
    %empty { $$ = NULL; }
  | ELSE block { $$ = $2; }
  | ELSE IF arith block otherwise
      { $$ = NULL;
        Stmt *s = ast_stmt(ps, (Stmt){.kind = ST_IF, .span = span_join(@2, @3),
                                      .branch = {$3, LIST(StmtVec, $4),
                                                 LIST(StmtVec, $5)}});
        AST_PUSH(ps, StmtVec, $$, s); } ;

targets:
    target { $$ = NULL; AST_PUSH(ps, TargetVec, $$, $1); }
  | targets ',' target { $$ = $1; AST_PUSH(ps, TargetVec, $$, $3); } ;

target:
    IDENT { $$ = (Target){.name = NAME($1, @1)}; }
  | IDENT ':' type { $$ = (Target){.name = NAME($1, @1), .type = $3}; }
  | IDENT '[' ']' { $$ = (Target){.name = NAME($1, @1), .indexed = true}; }
  | IDENT '[' places ']'
      { $$ = (Target){.name = NAME($1, @1), .indexed = true,
                      .subs = LIST(SubVec, $3)}; } ;

places:
    place { $$ = NULL; AST_PUSH(ps, SubVec, $$, $1); }
  | places ',' place { $$ = $1; AST_PUSH(ps, SubVec, $$, $3); } ;

place:
    sub
  | expr split
      { $$ = (Sub){.kind = SUB_AT, .lo = $1, .axes = LIST(NameVec, $2),
                   .span = @$}; } ;

nameds:
    named { $$ = NULL; AST_PUSH(ps, NamedVec, $$, $1); }
  | nameds ',' named { $$ = $1; AST_PUSH(ps, NamedVec, $$, $3); } ;

named: IDENT '=' expr { $$ = (Named){NAME($1, @1), $3}; } ;

probes:
    probe { $$ = NULL; AST_PUSH(ps, NamedVec, $$, $1); }
  | probes ',' probe { $$ = $1; AST_PUSH(ps, NamedVec, $$, $3); } ;

probe:
    named
  | IDENT { $$ = (Named){NAME($1, @1), ast_name(ps, @1, $1)}; } ;

rules:
    rule { $$ = NULL; AST_PUSH(ps, RuleVec, $$, $1); }
  | rules ',' rule { $$ = $1; AST_PUSH(ps, RuleVec, $$, $3); } ;

rule: STRING ':' expr { $$ = (Rule){NAME($1, @1), $3}; } ;

/* ---- expressions ---- */

exprs:
    expr { $$ = NULL; AST_PUSH(ps, ExprVec, $$, $1); }
  | exprs ',' expr { $$ = $1; AST_PUSH(ps, ExprVec, $$, $3); } ;

expr:
    arith
  | arith IF arith ELSE expr { $$ = ast_cond(ps, @$, $1, $3, $5); } ;

arith:
    postfix
  | arith OR arith { $$ = ast_binary(ps, @$, BIN_OR, $1, $3); }
  | arith AND arith { $$ = ast_binary(ps, @$, BIN_AND, $1, $3); }
  | arith EQ arith { $$ = ast_binary(ps, @$, BIN_EQ, $1, $3); }
  | arith NE arith { $$ = ast_binary(ps, @$, BIN_NE, $1, $3); }
  | arith '<' arith { $$ = ast_binary(ps, @$, BIN_LT, $1, $3); }
  | arith LE arith { $$ = ast_binary(ps, @$, BIN_LE, $1, $3); }
  | arith '>' arith { $$ = ast_binary(ps, @$, BIN_GT, $1, $3); }
  | arith GE arith { $$ = ast_binary(ps, @$, BIN_GE, $1, $3); }
  | arith '+' arith { $$ = ast_binary(ps, @$, BIN_ADD, $1, $3); }
  | arith '-' arith { $$ = ast_binary(ps, @$, BIN_SUB, $1, $3); }
  | arith '*' arith { $$ = ast_binary(ps, @$, BIN_MUL, $1, $3); }
  | arith '/' arith { $$ = ast_binary(ps, @$, BIN_DIV, $1, $3); }
  | arith '%' arith { $$ = ast_binary(ps, @$, BIN_REM, $1, $3); }
  | NOT arith { $$ = ast_unary(ps, @$, UN_NOT, $2); }
  | '-' arith %prec NEGATIVE { $$ = ast_unary(ps, @$, UN_NEG, $2); } ;

postfix:
    primary
  | postfix '(' args ')' { $$ = ast_call(ps, @$, $1, $3); }
  | postfix '[' subs ']' { $$ = ast_index(ps, @$, $1, $3); }
  | postfix '[' ']' { $$ = ast_index(ps, @$, $1, NULL); }
  | postfix AS STRING { $$ = ast_as(ps, @$, $1, NAME($3, @3)); } ;

primary:
    INT { $$ = ast_int(ps, @$, $1); }
  | FLOAT { $$ = ast_float(ps, @$, $1); }
  | TRUE { $$ = ast_bool(ps, @$, true); }
  | FALSE { $$ = ast_bool(ps, @$, false); }
  | STRING { $$ = ast_string(ps, @$, $1); }
  | IDENT { $$ = ast_name(ps, @$, $1); }
  | '(' expr ')' { $$ = $2; }
  | SCAN eaches along reverse with block
      { $$ = ast_loop(ps, @1, EX_SCAN,
                      &(Loop){.each = LIST(EachVec, $2), .along = $3,
                              .reverse = $4, .with = LIST(NamedVec, $5),
                              .body = LIST(StmtVec, $6)}); }
  | FOR IDENT IN arith DOTDOT arith with block
      { EachVec *each = NULL;
        AST_PUSH(ps, EachVec, each, ((Each){NAME($2, @2), $4, $6}));
        $$ = ast_loop(ps, @1, EX_FOR,
                      &(Loop){.each = *each, .with = LIST(NamedVec, $7),
                              .body = LIST(StmtVec, $8)}); }
  | FOR error block { $$ = ast_error(ps, @$); } ;

eaches:
    each { $$ = NULL; AST_PUSH(ps, EachVec, $$, $1); }
  | eaches ',' each { $$ = $1; AST_PUSH(ps, EachVec, $$, $3); } ;

each:
    IDENT IN arith { $$ = (Each){NAME($1, @1), $3, NULL}; }
  | IDENT IN arith DOTDOT arith { $$ = (Each){NAME($1, @1), $3, $5}; } ;

along:
    %empty { $$ = NULL; }
  | ALONG arith { $$ = $2; } ;

reverse:
    %empty { $$ = false; }
  | REVERSE { $$ = true; } ;

with:
    %empty { $$ = NULL; }
  | WITH nameds { $$ = $2; } ;

args:
    %empty { $$ = NULL; }
  | arg_list
  | arg_list ',' ;

arg_list:
    arg { $$ = NULL; AST_PUSH(ps, ArgVec, $$, $1); }
  | arg_list ',' arg { $$ = $1; AST_PUSH(ps, ArgVec, $$, $3); } ;

arg:
    expr { $$ = (Arg){.value = $1}; }
  | arg_name '=' expr { $$ = (Arg){$1, $3}; } ;

arg_name:
    IDENT { $$ = NAME($1, @1); }
  | REVERSE { $$ = NAME(sym(ps->cx, $1), @1); } ;

subs:
    sub { $$ = NULL; AST_PUSH(ps, SubVec, $$, $1); }
  | subs ',' sub { $$ = $1; AST_PUSH(ps, SubVec, $$, $3); } ;

sub:
    DOTDOT { $$ = (Sub){.kind = SUB_LEAD, .span = @$}; }
  | expr { $$ = (Sub){.kind = SUB_AT, .lo = $1, .span = @$}; }
  | maybe_expr ':' maybe_expr
      { $$ = (Sub){.kind = SUB_RANGE, .lo = $1, .hi = $3, .span = @$}; } ;

maybe_expr:
    %empty { $$ = NULL; }
  | expr ;

%%

enum { EXPECTED_SHOWN = 5, EXPECTED_MAX = 80 };

/* What an expression goes on with, where one may also end. */
static bool goes_on(yysymbol_kind_t k) {
  switch (k) {
  case YYSYMBOL_OR: case YYSYMBOL_AND: case YYSYMBOL_EQ: case YYSYMBOL_NE:
  case YYSYMBOL_LE: case YYSYMBOL_GE: case YYSYMBOL_AS: case YYSYMBOL_IF:
    return true;
  default:
    return strlen(yysymbol_name(k)) == 3 && /* a character in quotes */
           strchr("<>+-*/%([", yysymbol_name(k)[1]);
  }
}

/* "a, b or c" for the tokens that may stand here; "" when too many may. */
static void expected_text(const yypcontext_t *at, Buf *out) {
  yysymbol_kind_t all[EXPECTED_MAX], shown[EXPECTED_MAX];
  int n = yypcontext_expected_tokens(at, all, EXPECTED_MAX), n_shown = 0;
  bool starts = false, ends = false, closes = false;
  for (int i = 0; i < n; i++) {
    starts |= all[i] == YYSYMBOL_INT;
    ends |= all[i] == YYSYMBOL_OR;
    closes |= strcmp(yysymbol_name(all[i]), "'}'") == 0;
  }
  if (starts && !closes) {
    buf_add(out, "an expression");
    return;
  }
  for (int i = 0; i < n; i++)
    if (!ends || !goes_on(all[i])) shown[n_shown++] = all[i];
  if (n_shown > EXPECTED_SHOWN) return;
  for (int i = 0; i < n_shown; i++)
    buf_fmt(out, "%s%s", i == 0 ? "" : i == n_shown - 1 ? " or " : ", ",
            yysymbol_name(shown[i]));
}

static int yyreport_syntax_error(const yypcontext_t *at, Parser *ps) {
  Span s = *yypcontext_location(at);
  yysymbol_kind_t token = yypcontext_token(at);
  Buf expected = {0};
  if (ps->too_deep) return 0; /* reported */
  if (token == YYSYMBOL_YYEOF && ps->n_open) {
    uint32_t lo = ps->open_at[ps->n_open - 1];
    diag_error(ps->cx, (Span){ps->file, lo, lo + 1}, "'%c' is never closed",
               ps->open[ps->n_open - 1]);
    return 0;
  }
  expected_text(at, &expected);
  const char *what = token == YYSYMBOL_YYEMPTY ? "end of file"
                                               : yysymbol_name(token);
  const Source *src = &ps->cx->sources.data[ps->file - 1];
  bool shown = token == YYSYMBOL_IDENT || token == YYSYMBOL_INT ||
               token == YYSYMBOL_FLOAT;
  Sym found = shown ? sym_fmt(ps->cx, "'%.*s'", (int)(s.hi - s.lo),
                              src->text + s.lo)
                    : sym(ps->cx, what);
  if (expected.len)
    diag_error(ps->cx, s, "expected %s, found %s", expected.data, found);
  else
    diag_error(ps->cx, s, "unexpected %s", found);
  buf_free(&expected);
  return 0;
}

/* Called only when the parser's stack is full. */
static void ps_error(Span *loc, Parser *ps, const char *message) {
  (void)message;
  if (!ps->too_deep)
    diag_error(ps->cx, *loc, "this is nested too deeply");
  ps->too_deep = true;
}
