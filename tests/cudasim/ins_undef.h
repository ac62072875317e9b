/* ins_undef.h: behind each reading of ins.def, for another one. */
#undef S1
#undef S2
#undef S3
#undef M1
#undef M2
#undef M3
#undef M4
#undef CMP
#undef SEL
#undef PRED
#undef FAMILY
