/* ast.h: the syntax tree and its makers (ast.c), the scanner and the parser
 * (lex.l, parse.y). Private to the frontend. */
#ifndef MOEC_AST_H
#define MOEC_AST_H

#include "../ir/ir.h"

/* ---- ast.c: the syntax tree ---------------------------------------------- */

typedef struct Expr Expr;
typedef struct Stmt Stmt;
typedef struct Decl Decl;

/* A name as written. `text` is NULL where there is none. */
typedef struct Name {
  Sym text;
  Span span;
} Name;
typedef VEC(Name) NameVec;

/* BINARY(name, text, precedence): a higher precedence binds tighter. */
#define BINARY_OPS(X) \
  X(OR, "or", 1)      \
  X(AND, "and", 2)    \
  X(EQ, "==", 4)      \
  X(NE, "!=", 4)      \
  X(LT, "<", 4)       \
  X(LE, "<=", 4)      \
  X(GT, ">", 4)       \
  X(GE, ">=", 4)      \
  X(ADD, "+", 5)      \
  X(SUB, "-", 5)      \
  X(MUL, "*", 6)      \
  X(DIV, "/", 6)      \
  X(REM, "%", 6)

typedef enum BinaryOp {
#define BINARY(name, text, prec) BIN_##name,
  BINARY_OPS(BINARY)
#undef BINARY
      BIN_COUNT
} BinaryOp;
extern const char *const binary_text[BIN_COUNT];

typedef enum UnaryOp { UN_NEG, UN_NOT } UnaryOp;

/* One argument of a call; name.text is NULL for a positional one. */
typedef struct Arg {
  Name name;
  Expr *value;
} Arg;
typedef VEC(Arg) ArgVec;

/* One subscript: an index, a range with open ends, or `..`. */
typedef enum SubKind { SUB_AT, SUB_RANGE, SUB_LEAD } SubKind;
typedef struct Sub {
  SubKind kind;
  Expr *lo, *hi; /* SUB_AT: lo; SUB_RANGE: either may be NULL */
  NameVec axes;  /* SUB_AT on the left of a let: of the mesh, after '@' */
  Span span;
} Sub;
typedef VEC(Sub) SubVec;

/* One dim of a written type. */
typedef struct DimExpr {
  Expr *size;   /* NULL: `..` */
  NameVec axes; /* of the mesh, each after '@' */
  Span span;
} DimExpr;
typedef VEC(DimExpr) DimExprVec;

typedef struct TypeExpr {
  Name dtype;
  DimExprVec dims;
  Expr *like; /* f32[like x]; NULL otherwise */
  Span span;
} TypeExpr;
typedef VEC(TypeExpr *) TypeExprVec;

/* name = value: in set, next, report, probe and after `with`. */
typedef struct Named {
  Name name;
  Expr *value;
} Named;
typedef VEC(Named) NamedVec;

typedef VEC(Expr *) ExprVec;
typedef VEC(Stmt *) StmtVec;

/* What a loop runs over: a tensor's slices, or lo..hi. */
typedef struct Each {
  Name name;
  Expr *lo, *hi; /* hi is NULL for a tensor */
} Each;
typedef VEC(Each) EachVec;

typedef struct Loop {
  EachVec each; /* one for `for` */
  Expr *along;  /* scan only; NULL: dim 0 */
  bool reverse;
  NamedVec with;
  StmtVec body;
} Loop;

typedef enum ExprKind {
  EX_ERROR, /* reported already */
  EX_INT,
  EX_FLOAT,
  EX_BOOL,
  EX_STRING,
  EX_NAME,
  EX_UNARY,
  EX_BINARY,
  EX_COND, /* yes if cond else no */
  EX_CALL,
  EX_INDEX,
  EX_AS, /* call as "name" */
  EX_SCAN,
  EX_FOR
} ExprKind;

struct Expr {
  ExprKind kind;
  Span span;
  uint32_t depth; /* of the tree below, blocks included */
  union {
    int64_t i;
    double f;
    bool b;
    Sym s; /* EX_STRING, EX_NAME */
    struct {
      UnaryOp op;
      Expr *a;
    } unary;
    struct {
      BinaryOp op;
      Expr *a, *b;
    } binary;
    struct {
      Expr *cond, *yes, *no;
    } cond;
    struct {
      Expr *callee;
      ArgVec args;
    } call;
    struct {
      Expr *base;
      SubVec subs;
    } index;
    struct {
      Expr *call;
      Name name;
    } as;
    Loop *loop; /* EX_SCAN, EX_FOR */
  };
};

/* What `let` binds: a name, with subscripts in index form, or with a type. */
typedef struct Target {
  Name name;
  bool indexed;
  SubVec subs;
  TypeExpr *type; /* NULL: none written */
} Target;
typedef VEC(Target) TargetVec;

/* "pattern": optimiser. */
typedef struct Rule {
  Name pattern;
  Expr *optimiser;
} Rule;
typedef VEC(Rule) RuleVec;

typedef enum StmtKind {
  ST_LET,
  ST_PARAM,
  ST_STATE,
  ST_SET,
  ST_NEXT,
  ST_YIELD,
  ST_RETURN,
  ST_REPORT,
  ST_PROBE,
  ST_MINIMIZE,
  ST_IF,
  ST_RECOMPUTE,
  ST_WHERE,
  ST_EXPR
} StmtKind;

struct Stmt {
  StmtKind kind;
  Span span;
  uint32_t depth;
  union {
    struct {
      TargetVec targets;
      Expr *value;
    } let;
    struct {
      Name name;
      TypeExpr *type;
      Expr *init;   /* NULL for a state that starts at zero */
    } slot;         /* ST_PARAM, ST_STATE */
    NamedVec named; /* ST_SET, ST_NEXT, ST_REPORT, ST_PROBE */
    ExprVec values; /* ST_YIELD, ST_RETURN */
    struct {
      Expr *loss;
      RuleVec rules;
    } minimize;
    struct {
      Expr *cond;
      StmtVec yes, no;
    } branch; /* ST_IF, ST_WHERE */
    StmtVec body; /* ST_RECOMPUTE */
    Expr *expr;
  };
};

/* A parameter of a function, or an input of an entry. */
typedef struct ParamDecl {
  Name name;
  TypeExpr *type; /* NULL: anything */
  Expr *init;     /* default; NULL: none */
  Name source;    /* inputs: "text", "pairs.source" */
  ArgVec source_args;
} ParamDecl;
typedef VEC(ParamDecl) ParamVec;

typedef enum DeclKind {
  DECL_IMPORT,
  DECL_CONST,
  DECL_OPTION,
  DECL_MESH,
  DECL_FN,
  DECL_ENTRY
} DeclKind;

struct Decl {
  DeclKind kind;
  Name name; /* of a mesh: each axis is a Decl of its own */
  Span span;
  Expr *value;     /* DECL_CONST, DECL_OPTION */
  ParamVec params; /* DECL_FN: the first list; DECL_ENTRY: inputs */
  bool curried;    /* DECL_FN: has a second list */
  ParamVec more;   /* the second list */
  bool typed;      /* DECL_FN: results follow `->` */
  TypeExprVec results;
  Name size; /* DECL_ENTRY: the const of `for S in {...}` */
  ExprVec sizes;
  StmtVec body;
};
typedef VEC(Decl *) DeclVec;

/* ---- lex.l, parse.y: text to tree ---------------------------------------- */

enum {
  MAX_NESTING = 300, /* brackets inside one another */
  MAX_DEPTH = 250 /* of any tree, and so of its canonical text */
};

typedef union Literal {
  int64_t i;
  double f;
  Sym s;
} Literal;

typedef struct Token {
  int token;
  Literal literal;
  Span loc;
} Token;

/* The state of one file's scanner and parser. */
typedef struct Parser {
  Ctx *cx;
  uint32_t file;
  void *scanner;
  uint32_t at;                   /* bytes scanned */
  char open[MAX_NESTING];        /* brackets that are open: ( [ { */
  uint32_t open_at[MAX_NESTING]; /* where they stand */
  uint32_t n_open;
  bool too_deep; /* reported; the rest of the file is dropped */
  int last;      /* token given to the parser last */
  Token held;    /* comes next, after a statement end */
  bool is_held;
  DeclVec decls; /* what was parsed */
} Parser;

/* Makers of the tree, called by the grammar's actions. Lists are taken over. */
Expr *ast_error(Parser *ps, Span s);
Expr *ast_int(Parser *ps, Span s, int64_t i);
Expr *ast_float(Parser *ps, Span s, double f);
Expr *ast_bool(Parser *ps, Span s, bool b);
Expr *ast_string(Parser *ps, Span s, Sym text);
Expr *ast_name(Parser *ps, Span s, Sym text);
Expr *ast_unary(Parser *ps, Span s, UnaryOp op, Expr *a);
Expr *ast_binary(Parser *ps, Span s, BinaryOp op, Expr *a, Expr *b);
Expr *ast_cond(Parser *ps, Span s, Expr *yes, Expr *cond, Expr *no);
Expr *ast_call(Parser *ps, Span s, Expr *callee, const ArgVec *args);
Expr *ast_index(Parser *ps, Span s, Expr *base, const SubVec *subs);
Expr *ast_as(Parser *ps, Span s, Expr *call, Name name);
Expr *ast_loop(Parser *ps, Span s, ExprKind kind, const Loop *loop);
TypeExpr *ast_type(Parser *ps, Span s, Name dtype, const DimExprVec *dims,
                   Expr *like);
/* A statement from its parts; copies `s` and works out its depth. */
Stmt *ast_stmt(Parser *ps, Stmt s);
void ast_decl(Parser *ps, Decl d);

/* Appends `item` to a list that grammar actions pass around by pointer; a NULL
 * list starts a new one. */
#define AST_PUSH(ps, T, list, item)                 \
  do {                                              \
    T *old_ = (list);                               \
    (list) = old_ ? old_ : NEW(&(ps)->cx->perm, T); \
    vec_push(&(ps)->cx->perm, (list), (item));      \
  } while (0)

/* Canonical text of a file's tree: every operation in brackets, one statement
 * a line. Parsing it gives the same tree again. */
void ast_print(const DeclVec *decls, Buf *out);

void ast_print_type(const TypeExpr *t, Buf *out); /* "f32[.., d]" */

/* Parses a registered source. Mistakes are diagnostics; what could be parsed
 * is returned all the same. */
DeclVec fe_parse(Ctx *cx, uint32_t file);

#endif
